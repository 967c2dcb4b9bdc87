"""Judges of speech that were trained elsewhere: one file a judge, behind one small interface.

None is needed: each comes with packages of the extra `judges`, and without them is left out.
"""
