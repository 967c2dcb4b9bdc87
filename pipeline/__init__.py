"""Five stages from recorded speech to a report on a speech language model."""
