"""What a client is told of a request that is not answered with speech, in the shape of OpenAI's errors."""

from starlette.responses import JSONResponse


class RequestError(Exception):
    """A request that cannot be answered as it is.

    Args:
        status: of HTTP.
        message: what is wrong, and the remedy.
        field: which field of the request is at fault, where one is.
        retry_after: seconds after which the same request may be answered, where it may.
    """

    def __init__(self, status: int, message: str, field: str | None = None, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.field, self.retry_after = status, message, field, retry_after

    def response(self) -> JSONResponse:
        """What the client is sent."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        content = {"error": {"message": self.message, "type": kind, "param": self.field, "code": None}}
        headers = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        return JSONResponse(content, self.status, headers)
