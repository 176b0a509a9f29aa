"""The web page and the HTTP API of `nlrn serve`; `server` and what it imports need the packages of the extra `app`."""
