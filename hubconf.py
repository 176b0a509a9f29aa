"""For `torch.hub.load("FOLDER OF THIS REPOSITORY", "nlrn", "nlrn-gray", source="local")`, where nlrn is installed."""

dependencies = ["torch", "nlrn"]

from nlrn import load_model as nlrn  # noqa: E402, F401
