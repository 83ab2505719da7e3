"""Implement the commands of the handshake: hello, login, build information, sessions. No I/O."""

import contextlib
import os
import platform
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bson.binary import Binary

from mydocs.localserver.catalogue.transactions import LIFETIME_SECONDS
from mydocs.localserver.errors import CommandError, NotKnown
from mydocs.localserver.query.values import type_name
from mydocs.localserver.wire import messages, scram
from mydocs.localserver.wire.cursors import IDLE_SECONDS

if TYPE_CHECKING:
    from mydocs.localserver.engine import Engine

Document = dict[str, Any]

VERSION = "7.0.0"  # the version to imitate; drivers send what MongoDB can do up to it
WIRE_VERSION = 21  # of MongoDB 7.0
SESSION_MINUTES = 30  # `logicalSessionTimeoutMinutes` of every MongoDB server


@dataclass
class Login:
    """The state of one connection's login."""

    user: str | None = None
    conversation: scram.Conversation | None = None


@dataclass(frozen=True)
class Greeting:
    """A command of the handshake and its connection. It is answered without the server's lock."""

    engine: "Engine"
    database: str
    login: Login
    connection_id: int
    address: str


def hello(greeting: Greeting, body: Mapping[str, Any]) -> Document:
    """Describe the server: the only member of a replica set, and its primary."""
    engine = greeting.engine
    primary = not engine.controls.electing
    reply: Document = {
        "helloOk": True,
        "isWritablePrimary" if "hello" in body else "ismaster": primary,
        "secondary": not primary,
        "setName": "local",
        "setVersion": 1,
        "hosts": [engine.address],
        "me": engine.address,
        "maxBsonObjectSize": messages.MAX_DOCUMENT,
        "maxMessageSizeBytes": messages.MAX_MESSAGE,
        "maxWriteBatchSize": messages.MAX_BATCH,
        "localTime": engine.clock.now(),
        "logicalSessionTimeoutMinutes": SESSION_MINUTES,
        "connectionId": greeting.connection_id,
        # Without `topologyVersion`, since with it drivers would ask for a stream of these answers.
        "minWireVersion": 0,
        "maxWireVersion": WIRE_VERSION,
        "readOnly": False,
    }
    if primary:
        reply["primary"] = engine.address
    asked = body.get("saslSupportedMechs")
    if asked is not None and engine.credentials is not None:
        known = str(asked).partition(".")[2] == engine.credentials.user
        if known:
            reply["saslSupportedMechs"] = [scram.MECHANISM]
    speculative = body.get("speculativeAuthenticate")
    if isinstance(speculative, Mapping) and engine.credentials is not None:
        # A failed speculative login is left out. The driver then logs in normally and gets the error.
        with contextlib.suppress(CommandError):
            reply["speculativeAuthenticate"] = sasl_start(greeting, speculative)
    return reply


def sasl_start(greeting: Greeting, body: Mapping[str, Any]) -> Document:
    """Begin a login."""
    if body.get("mechanism") != scram.MECHANISM:
        raise CommandError(334, f"Unsupported mechanism '{body.get('mechanism')}' for authentication")
    if greeting.engine.credentials is None:
        raise CommandError(18, "Authentication failed.")
    conversation = greeting.login.conversation = scram.Conversation(greeting.engine.credentials)
    if body.get("options", {}).get("skipEmptyExchange"):
        conversation.short = True
    return _sasl(greeting, conversation, body["payload"])


def sasl_continue(greeting: Greeting, body: Mapping[str, Any]) -> Document:
    """Continue a login."""
    conversation = greeting.login.conversation
    if conversation is None:
        raise CommandError(17, "No SASL session state found")
    return _sasl(greeting, conversation, body["payload"])


def _sasl(greeting: Greeting, conversation: scram.Conversation, payload: bytes) -> Document:
    try:
        answer = conversation.answer(bytes(payload))
    except CommandError:
        greeting.login.conversation = None
        raise
    if conversation.done:
        greeting.login.user = conversation.credentials.user
        greeting.login.conversation = None
    return {"conversationId": 1, "done": conversation.done, "payload": answer}


def logout(greeting: Greeting, body: Mapping[str, Any]) -> Document:
    """End a login."""
    greeting.login.user = None
    return {}


def nothing(greeting: Greeting, body: Mapping[str, Any]) -> Document:
    """Answer with success."""
    return {}


def build_info(greeting: Greeting, body: Mapping[str, Any]) -> Document:
    """Return the imitated version, and what the server really is."""
    return {
        "version": VERSION,
        "versionArray": [*map(int, VERSION.split(".")), 0],
        "gitVersion": "mydocs local server, not MongoDB",
        "modules": [],
        "bits": 64,
        "debug": False,
        "maxBsonObjectSize": messages.MAX_DOCUMENT,
        "storageEngines": ["mydocs"],
    }


def host_info(greeting: Greeting, body: Mapping[str, Any]) -> Document:
    """Describe the machine."""
    return {
        "system": {"hostname": platform.node(), "currentTime": greeting.engine.clock.now(), "numCores": os.cpu_count()},
        "os": {"type": platform.system(), "name": platform.system(), "version": platform.release()},
        "extra": {},
    }


def server_status(greeting: Greeting, body: Mapping[str, Any]) -> Document:
    """Return that the server runs."""
    engine = greeting.engine
    return {
        "host": engine.address, "version": VERSION, "process": "mydocs local server", "pid": os.getpid(),
        "uptime": engine.clock.monotonic() - engine.started_at, "localTime": engine.clock.now(),
        "storageEngine": {"name": "mydocs", "persistent": engine.persistent}, "repl": {"setName": "local"},
    }  # fmt: skip


def connection_status(greeting: Greeting, body: Mapping[str, Any]) -> Document:
    """Return the user of the connection."""
    user = greeting.login.user
    users = [{"user": user, "db": "admin"}] if user else []
    roles = [{"role": "root", "db": "admin"}] if user else []
    return {"authInfo": {"authenticatedUsers": users, "authenticatedUserRoles": roles}}


def users_info(greeting: Greeting, body: Mapping[str, Any]) -> Document:
    """List the one user, if there is one."""
    credentials = greeting.engine.credentials
    user = {"_id": f"admin.{credentials.user}", "user": credentials.user, "db": "admin"} if credentials else {}
    asked = body["usersInfo"]
    name = asked.get("user") if isinstance(asked, Mapping) else asked
    if not user or (name not in (1, user["user"])):
        return {"users": []}
    return {"users": [{**user, "roles": [{"role": "root", "db": "admin"}], "mechanisms": [scram.MECHANISM]}]}


def what_is_my_uri(greeting: Greeting, body: Mapping[str, Any]) -> Document:
    """Return the client's own address."""
    return {"you": greeting.address}


def command_line(greeting: Greeting, body: Mapping[str, Any]) -> Document:
    """Return the start options, as far as drivers ask for them."""
    return {"argv": ["mydocs", "local", "serve"], "parsed": {}}


def get_parameter(greeting: Greeting, body: Mapping[str, Any]) -> Document:
    """Return the few parameters that clients ask for."""
    known = {
        "featureCompatibilityVersion": {"version": VERSION.rpartition(".")[0]},
        "authenticationMechanisms": [scram.MECHANISM] if greeting.engine.credentials else [],
        "enableTestCommands": False,
        "requireApiVersion": False,
        "transactionLifetimeLimitSeconds": int(LIFETIME_SECONDS),
        "cursorTimeoutMillis": int(IDLE_SECONDS * 1000),
    }
    if body["getParameter"] == "*":
        return known
    if isinstance(body["getParameter"], Mapping):
        raise NotKnown("getParameter with options")
    found = {name: known[name] for name in body if name in known}
    if not found:
        raise CommandError(72, "no option found to get")
    return found


def start_session(greeting: Greeting, body: Mapping[str, Any]) -> Document:
    """Begin a session. Drivers usually create their own."""
    return {"id": {"id": Binary(uuid.uuid4().bytes, 4)}, "timeoutMinutes": SESSION_MINUTES}


def end_sessions(greeting: Greeting, body: Mapping[str, Any]) -> Document:
    """End sessions: abort their transactions and cursors."""
    name, sessions = next(iter(body.items()))
    if not isinstance(sessions, list):
        raise CommandError(14, f"BSON field '{name}' is the wrong type '{type_name(sessions)}', expected type 'array'")
    for session in sessions:
        greeting.engine.end_session(session_id(session))
    return {}


def session_id(session: Any) -> bytes:
    """Return what identifies a session."""
    identity = session.get("id") if isinstance(session, Mapping) else None
    if not isinstance(identity, bytes):
        raise CommandError(14, "the 'id' of a session is not a binary value")
    return bytes(identity)
