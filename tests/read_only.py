"""An authorizer of a Jupyter server: who says that he only reads may only read what is this package's."""

from jupyter_server.auth import Authorizer


class ReadOnly(Authorizer):
    def is_authorized(self, handler, user, action, resource) -> bool:
        reader = "X-Only-Reads" in handler.request.headers
        return resource != "ppe_jupyter" or action == "read" or not reader
