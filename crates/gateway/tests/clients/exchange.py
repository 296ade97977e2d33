"""An unchanged google-auth: exchanges the token that a credential file leads to, and calls a model with what it is given. Prints the
status."""

import sys

from google.auth import identity_pool
from google.auth.transport.requests import AuthorizedSession

file, url = sys.argv[1:]
credentials = identity_pool.Credentials.from_file(file, scopes=["https://www.googleapis.com/auth/cloud-platform"])
contents = [{"role": "user", "parts": [{"text": "What is the answer?"}]}]
print(AuthorizedSession(credentials).post(url, json={"contents": contents}, timeout=10).status_code)
