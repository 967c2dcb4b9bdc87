"""What a training will need, before there is a machine to run it on: memory and traffic of one rank of many."""
