"""The smoke verdict after a conversion: is what was written the model that was read, and does it still speak?"""
