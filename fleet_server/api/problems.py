"""What a caller is told when a request cannot be answered: a code, what happened, what to do next.

One shape for every failure, whoever noticed it: a router, the checks of a request, the framework,
or the database.
"""

import logging
from http import HTTPStatus
from typing import Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException

from fleet_protocol.health import CATALOG
from fleet_protocol.texts import _, mark
from fleet_server.errors import (
    AccessConflict,
    BadChange,
    Conflict,
    CsrRefused,
    FilterError,
    IssuerDown,
    LimitReached,
    LoginRefused,
    ManyRevocations,
    NoArtifact,
    NoCeremony,
    NoIssuer,
    NoProposal,
    NotFound,
    NotYours,
    PasswordRefused,
    PersonNotFound,
    ProposalConflict,
    Refused,
    RevocationConflict,
    RolloutConflict,
    RolloutNotFound,
    RulesError,
    ServerError,
    Stale,
    TooBroad,
    TooLarge,
    Unattested,
)

_log: Final = logging.getLogger(__name__)


class Problem(BaseModel):
    """Why a request was not answered. ``code`` is stable; the texts are for people."""

    code: str
    message: str
    next_step: str


class ProblemError(Exception):
    """Carries a problem out of a router."""

    def __init__(self, status: int, code: str, message: str, next_step: str) -> None:
        super().__init__(message)
        self.status = status
        self.problem = Problem(code=code, message=message, next_step=next_step)


_FAMILIES: Final[tuple[tuple[type[ServerError], int, str, str], ...]] = (
    (NotFound, 404, "not_found", mark("Look up the name in the list of devices.")),
    (Conflict, 409, "conflict", mark("Choose another name, or go on with the device that is there.")),
    (RevocationConflict, 409, "revocation_conflict", mark("Look at how it is: fleet device show NAME.")),
    (
        ManyRevocations,
        409,
        "many_revocations",
        mark("Propose it for all of them: fleet proposal make device.revoke; or break the glass."),
    ),
    (LimitReached, 409, "limit_reached", mark("Take away what is not needed any more, then try again.")),
    (CsrRefused, 422, "csr_refused", mark("Make a P-256 key and a request for it with CN=<device id>.")),
    (NoArtifact, 404, "not_published", mark("Look at what is published: fleet artifact list.")),
    (Refused, 422, "refused", mark("Correct what the message names, and publish again.")),
    (Stale, 409, "stale", mark("Publish on top of what is there: 'fleet publish' fetches it first.")),
    (TooLarge, 413, "too_large", mark("Publish something smaller.")),
    (
        Unattested,
        422,
        "unattested",
        mark("Have it written again: edge-agent update receipt --out FILE."),
    ),
    (NoCeremony, 409, "no_ceremony", mark("Hold a key ceremony: fleet key ceremony --help.")),
    (
        FilterError,
        422,
        "bad_filter",
        mark("Write terms like 'site=north profile=pi5 id=gw-1*'; all must hold, none are every device."),
    ),
    (RulesError, 422, "bad_rules", mark("Correct the waves or the group, and start it again.")),
    (
        RolloutNotFound,
        404,
        "not_found",
        mark("See what there is: 'fleet group list', 'fleet artifact list', 'fleet rollout list'."),
    ),
    (
        RolloutConflict,
        409,
        "rollout_conflict",
        mark("Look at it with 'fleet rollout show ID'; wait for its end, or abort it."),
    ),
    (
        PersonNotFound,
        404,
        "not_found",
        mark("See who and what there is: 'fleet person list', 'fleet token list'."),
    ),
    (
        AccessConflict,
        409,
        "conflict",
        mark("Look at what there is: 'fleet person list', 'fleet token list'."),
    ),
    (PasswordRefused, 422, "password_refused", mark("Choose another password; length is what counts.")),
    (TooBroad, 403, "too_broad", mark("Ask for less, or log in and ask with the session: 'fleet login'.")),
    (LoginRefused, 401, "login_refused", mark("Try again in a quarter of an hour, or ask an administrator.")),
    (NoIssuer, 404, "no_issuer", mark("Log in with a password, or serve with --oidc-issuer.")),
    (IssuerDown, 502, "issuer_down", mark("Log in with a password, or try again when the issuer answers.")),
    (BadChange, 422, "bad_change", mark("Correct what the message names, and propose it again.")),
    (NoProposal, 404, "not_found", mark("See what is proposed: fleet proposal list.")),
    (NotYours, 403, "not_yours", mark("Ask another person who has the right.")),
    (ProposalConflict, 409, "proposal_conflict", mark("Look at it with 'fleet proposal show ID'.")),
    (ServerError, 500, "server_error", mark("Look at the server's log; the message says what to do.")),
)


def install(app: FastAPI) -> None:
    """Make every failure of ``app`` answer in one shape."""
    app.add_exception_handler(ProblemError, _on_problem)
    app.add_exception_handler(ServerError, _on_server_error)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(SQLAlchemyError, _on_database)
    app.add_exception_handler(Exception, _on_bug)


def _on_problem(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ProblemError)  # noqa: S101 - the framework sorts by type
    headers = {"WWW-Authenticate": "Bearer"} if error.status == HTTPStatus.UNAUTHORIZED else None
    return JSONResponse(error.problem.model_dump(), error.status, headers)


def _on_server_error(_request: Request, error: Exception) -> JSONResponse:
    status, code, next_step = next(
        (status, code, next_step)
        for family, status, code, next_step in _FAMILIES
        if isinstance(error, family)
    )
    return _answer(status, code, str(error), _(next_step))


def _on_invalid(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)  # noqa: S101
    problems = "; ".join(
        f"{'.'.join(str(part) for part in one['loc'])}: {one['msg']}" for one in error.errors()[:5]
    )
    return _answer(422, "invalid", problems, _("Correct the request; /openapi.json describes it."))


def _on_http(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)  # noqa: S101
    is_too_large = error.status_code == HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    code = "too_large" if is_too_large else HTTPStatus(error.status_code).phrase.lower().replace(" ", "_")
    return _answer(error.status_code, code, str(error.detail), _("See /openapi.json for what there is."))


def _on_database(_request: Request, error: Exception) -> JSONResponse:
    _log.error("the database failed: %s", error)
    words = CATALOG["database.down"]
    return _answer(503, words.code, words.title, words.next_step)


def _on_bug(_request: Request, _error: Exception) -> JSONResponse:
    """The framework writes the traceback to the log."""
    return _answer(500, "bug", _("The server made a mistake."), _("Report it with the API's log."))


def _answer(status: int, code: str, message: str, next_step: str) -> JSONResponse:
    return JSONResponse(Problem(code=code, message=message, next_step=next_step).model_dump(), status)
