"""The web page and the HTTP API of `nlrn serve`; only `server` and `uploads` need the packages of the extra `app`."""
