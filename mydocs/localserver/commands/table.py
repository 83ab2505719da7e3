"""Define the table of commands: their names and fields, and when a client may send them. Pure."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from mydocs.localserver.catalogue.options import CREATE
from mydocs.localserver.commands import handshake, indexing, namespaces, reads, writes
from mydocs.localserver.commands.context import Context, refuse_collation
from mydocs.localserver.commands.handshake import Greeting
from mydocs.localserver.errors import CommandError, NotKnown
from mydocs.localserver.query.fields import checked, fields
from mydocs.localserver.wire.messages import Documents

Document = dict[str, Any]

# Fields that every command accepts, besides those that begin with a "$".
GENERIC = {
    "lsid": "object", "txnNumber": "number", "stmtId": "number", "stmtIds": "array", "autocommit": "bool",
    "startTransaction": "bool", "comment": "any", "maxTimeMS": "any", "maxTimeMSOpOnly": "any",
    "readConcern": "object", "writeConcern": "object", "apiVersion": "string", "apiStrict": "bool",
    "apiDeprecationErrors": "bool",
}  # fmt: skip


@dataclass(frozen=True)
class Command:
    """
    A command on data.

    :param fields: name → kind; a kind with ``!`` is required
    :param transactional: allowed in a transaction
    :param stable: part of version 1 of the stable API
    """

    run: Callable[[Context, Document], Document]
    fields: Mapping[str, str]
    transactional: bool = False
    stable: bool = True

    def checked(self, name: str, body: Mapping[str, Any]) -> Document:
        """
        Return the fields of a command that are set.

        :raises CommandError: code 40415, 40414 or 14 for a field that is unknown, missing or of a wrong type
        """
        free = {
            field: value
            for field, value in body.items()
            if field == name or field.startswith("$") or ("*" in self.fields and field not in GENERIC)
        }
        rest = {field: value for field, value in body.items() if field not in free}
        large: Document = {}
        for field, value in rest.items():
            if isinstance(value, Documents):
                is_own = self.fields.get(field) == "objects!"
                large[field], rest[field] = (value, []) if is_own else (list(value), list(value))
        given = {**free, **checked(name, rest, {**GENERIC, **self.fields}), **large}
        refuse_collation(given)
        return given


@dataclass(frozen=True)
class Plain:
    """A command without data and without a login. It is answered without the server's lock."""

    run: Callable[[Greeting, Mapping[str, Any]], Document]
    public: bool = True


def _no_transaction(context: Context, body: Document) -> Document:
    raise CommandError(125, "Transaction isn't in progress")


READ = "collation:object hint:any let:object"
COMMANDS: dict[str, Command | Plain] = {
    "find": Command(
        reads.find,
        fields(
            f"filter:object sort:object projection:object skip:number limit:number batchSize:number singleBatch:bool "
            f"max:object min:object returnKey:bool showRecordId:bool tailable:bool oplogReplay:bool awaitData:bool "
            f"noCursorTimeout:bool allowPartialResults:bool allowDiskUse:bool {READ}"
        ),
        transactional=True,
    ),
    "aggregate": Command(
        reads.aggregate,
        fields(f"pipeline:array! cursor:object explain:bool allowDiskUse:bool bypassDocumentValidation:bool {READ}"),
        transactional=True,
    ),
    "count": Command(reads.count, fields("query:object limit:number skip:number collation:object hint:any")),
    "distinct": Command(
        reads.distinct, fields("key:string! query:object collation:object hint:any"), transactional=True, stable=False
    ),
    "getMore": Command(reads.get_more, fields("collection:string! batchSize:number"), transactional=True),
    "killCursors": Command(reads.kill_cursors, fields("cursors:array!"), transactional=True),
    "insert": Command(
        writes.insert, fields("documents:objects! ordered:bool bypassDocumentValidation:bool"), transactional=True
    ),
    "update": Command(
        writes.update,
        fields("updates:objects! ordered:bool bypassDocumentValidation:bool let:object"),
        transactional=True,
    ),
    "delete": Command(writes.delete, fields("deletes:objects! ordered:bool let:object"), transactional=True),
    "findAndModify": Command(
        writes.find_and_modify,
        fields(
            f"query:object sort:object remove:bool update:change new:bool fields:object upsert:bool arrayFilters:array "
            f"bypassDocumentValidation:bool {READ}"
        ),
        transactional=True,
    ),
    "create": Command(
        namespaces.create,
        {**CREATE, "collation": "object"},
        transactional=True,
    ),
    "drop": Command(namespaces.drop, {}),
    "dropDatabase": Command(namespaces.drop_database, {}),
    "renameCollection": Command(
        namespaces.rename_collection, fields("to:string! dropTarget:bool stayTemp:bool"), stable=False
    ),
    "collMod": Command(
        namespaces.coll_mod,
        fields(
            "index:object validator:object validationLevel:string validationAction:string viewOn:string pipeline:array "
            "expireAfterSeconds:any timeseries:object cappedSize:any cappedMax:any dryRun:bool "
            "changeStreamPreAndPostImages:object"
        ),
    ),
    "listCollections": Command(
        namespaces.list_collections,
        fields("filter:object nameOnly:bool authorizedCollections:bool cursor:object"),
    ),
    "listDatabases": Command(namespaces.list_databases, fields("filter:object nameOnly:bool authorizedDatabases:bool")),
    "collStats": Command(namespaces.coll_stats, fields("scale:number"), stable=False),
    "dbStats": Command(namespaces.db_stats, fields("scale:number freeStorage:number"), stable=False),
    "validate": Command(namespaces.validate, fields("full:bool background:bool scandata:bool"), stable=False),
    "createIndexes": Command(
        indexing.create_indexes,
        fields("indexes:array! commitQuorum:any ignoreUnknownIndexOptions:bool"),
        transactional=True,
    ),
    "listIndexes": Command(indexing.list_indexes, fields("cursor:object")),
    "dropIndexes": Command(indexing.drop_indexes, fields("index:any!")),
    # The search catalogue checks the fields of its commands itself.
    "createSearchIndexes": Command(indexing.create_search_indexes, {"*": "any"}, stable=False),
    "updateSearchIndex": Command(indexing.update_search_index, {"*": "any"}, stable=False),
    "dropSearchIndex": Command(indexing.drop_search_index, {"*": "any"}, stable=False),
    "listSearchIndexes": Command(indexing.list_search_indexes, fields("name:string id:string"), stable=False),
    # Called only outside of a transaction. Inside, the engine handles them before.
    "commitTransaction": Command(_no_transaction, {}, transactional=True),
    "abortTransaction": Command(_no_transaction, {}, transactional=True),
    "hello": Plain(handshake.hello),
    "isMaster": Plain(handshake.hello),
    "ismaster": Plain(handshake.hello),
    "saslStart": Plain(handshake.sasl_start),
    "saslContinue": Plain(handshake.sasl_continue),
    "logout": Plain(handshake.logout),
    "ping": Plain(handshake.nothing),
    "buildInfo": Plain(handshake.build_info),
    "buildinfo": Plain(handshake.build_info),
    "connectionStatus": Plain(handshake.connection_status),
    "whatsmyuri": Plain(handshake.what_is_my_uri),
    "hostInfo": Plain(handshake.host_info, public=False),
    "serverStatus": Plain(handshake.server_status, public=False),
    "getCmdLineOpts": Plain(handshake.command_line, public=False),
    "getParameter": Plain(handshake.get_parameter, public=False),
    "usersInfo": Plain(handshake.users_info, public=False),
    "startSession": Plain(handshake.start_session, public=False),
    "refreshSessions": Plain(handshake.nothing, public=False),
    "endSessions": Plain(handshake.end_sessions),
    "killSessions": Plain(handshake.end_sessions, public=False),
}
COMMANDS["findandmodify"] = COMMANDS["findAndModify"]
COMMANDS["collstats"] = COMMANDS["collStats"]
COMMANDS["dbstats"] = COMMANDS["dbStats"]
COMMANDS["deleteIndexes"] = COMMANDS["dropIndexes"]


def command_named(name: str) -> Command | Plain:
    """
    Return a command.

    :raises NotKnown: for any other name, whether a MongoDB server has it or not
    """
    found = COMMANDS.get(name)
    if found is None:
        raise NotKnown(f"the command '{name}'")
    return found
