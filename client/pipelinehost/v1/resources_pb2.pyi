import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class SettingSource(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SETTING_SOURCE_UNSPECIFIED: _ClassVar[SettingSource]
    SETTING_SOURCE_DEFAULT: _ClassVar[SettingSource]
    SETTING_SOURCE_PACKAGED: _ClassVar[SettingSource]
    SETTING_SOURCE_TARGET: _ClassVar[SettingSource]
    SETTING_SOURCE_STAGE: _ClassVar[SettingSource]
    SETTING_SOURCE_RUN: _ClassVar[SettingSource]

class ImportMode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    IMPORT_MODE_UNSPECIFIED: _ClassVar[ImportMode]
    IMPORT_MODE_UPGRADE: _ClassVar[ImportMode]
    IMPORT_MODE_UPDATE: _ClassVar[ImportMode]
SETTING_SOURCE_UNSPECIFIED: SettingSource
SETTING_SOURCE_DEFAULT: SettingSource
SETTING_SOURCE_PACKAGED: SettingSource
SETTING_SOURCE_TARGET: SettingSource
SETTING_SOURCE_STAGE: SettingSource
SETTING_SOURCE_RUN: SettingSource
IMPORT_MODE_UNSPECIFIED: ImportMode
IMPORT_MODE_UPGRADE: ImportMode
IMPORT_MODE_UPDATE: ImportMode

class Environment(_message.Message):
    __slots__ = ("name", "display_name", "description", "kind", "url", "connectivity_url", "region", "installed_apps", "etag", "create_time", "update_time", "sign_in", "organization_id", "taken_by", "taken_time", "makers")
    class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        KIND_UNSPECIFIED: _ClassVar[Environment.Kind]
        KIND_DEVELOPMENT: _ClassVar[Environment.Kind]
        KIND_TARGET: _ClassVar[Environment.Kind]
    KIND_UNSPECIFIED: Environment.Kind
    KIND_DEVELOPMENT: Environment.Kind
    KIND_TARGET: Environment.Kind
    class InstalledAppsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    DISPLAY_NAME_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    URL_FIELD_NUMBER: _ClassVar[int]
    CONNECTIVITY_URL_FIELD_NUMBER: _ClassVar[int]
    REGION_FIELD_NUMBER: _ClassVar[int]
    INSTALLED_APPS_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    UPDATE_TIME_FIELD_NUMBER: _ClassVar[int]
    SIGN_IN_FIELD_NUMBER: _ClassVar[int]
    ORGANIZATION_ID_FIELD_NUMBER: _ClassVar[int]
    TAKEN_BY_FIELD_NUMBER: _ClassVar[int]
    TAKEN_TIME_FIELD_NUMBER: _ClassVar[int]
    MAKERS_FIELD_NUMBER: _ClassVar[int]
    name: str
    display_name: str
    description: str
    kind: Environment.Kind
    url: str
    connectivity_url: str
    region: str
    installed_apps: _containers.ScalarMap[str, str]
    etag: str
    create_time: _timestamp_pb2.Timestamp
    update_time: _timestamp_pb2.Timestamp
    sign_in: SignIn
    organization_id: str
    taken_by: str
    taken_time: _timestamp_pb2.Timestamp
    makers: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, name: _Optional[str] = ..., display_name: _Optional[str] = ..., description: _Optional[str] = ..., kind: _Optional[_Union[Environment.Kind, str]] = ..., url: _Optional[str] = ..., connectivity_url: _Optional[str] = ..., region: _Optional[str] = ..., installed_apps: _Optional[_Mapping[str, str]] = ..., etag: _Optional[str] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., update_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., sign_in: _Optional[_Union[SignIn, _Mapping]] = ..., organization_id: _Optional[str] = ..., taken_by: _Optional[str] = ..., taken_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., makers: _Optional[_Iterable[str]] = ...) -> None: ...

class SignIn(_message.Message):
    __slots__ = ("method", "tenant", "client_id", "authority")
    class Method(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        METHOD_UNSPECIFIED: _ClassVar[SignIn.Method]
        METHOD_CLIENT_SECRET: _ClassVar[SignIn.Method]
        METHOD_CERTIFICATE: _ClassVar[SignIn.Method]
        METHOD_MANAGED_IDENTITY: _ClassVar[SignIn.Method]
        METHOD_DEVELOPER: _ClassVar[SignIn.Method]
    METHOD_UNSPECIFIED: SignIn.Method
    METHOD_CLIENT_SECRET: SignIn.Method
    METHOD_CERTIFICATE: SignIn.Method
    METHOD_MANAGED_IDENTITY: SignIn.Method
    METHOD_DEVELOPER: SignIn.Method
    METHOD_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    CLIENT_ID_FIELD_NUMBER: _ClassVar[int]
    AUTHORITY_FIELD_NUMBER: _ClassVar[int]
    method: SignIn.Method
    tenant: str
    client_id: str
    authority: str
    def __init__(self, method: _Optional[_Union[SignIn.Method, str]] = ..., tenant: _Optional[str] = ..., client_id: _Optional[str] = ..., authority: _Optional[str] = ...) -> None: ...

class EnvironmentHealth(_message.Message):
    __slots__ = ("reachable", "signed_in", "privileged", "version", "region", "organization_id", "findings", "check_time")
    REACHABLE_FIELD_NUMBER: _ClassVar[int]
    SIGNED_IN_FIELD_NUMBER: _ClassVar[int]
    PRIVILEGED_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    REGION_FIELD_NUMBER: _ClassVar[int]
    ORGANIZATION_ID_FIELD_NUMBER: _ClassVar[int]
    FINDINGS_FIELD_NUMBER: _ClassVar[int]
    CHECK_TIME_FIELD_NUMBER: _ClassVar[int]
    reachable: bool
    signed_in: bool
    privileged: bool
    version: str
    region: str
    organization_id: str
    findings: _containers.RepeatedCompositeFieldContainer[Finding]
    check_time: _timestamp_pb2.Timestamp
    def __init__(self, reachable: _Optional[bool] = ..., signed_in: _Optional[bool] = ..., privileged: _Optional[bool] = ..., version: _Optional[str] = ..., region: _Optional[str] = ..., organization_id: _Optional[str] = ..., findings: _Optional[_Iterable[_Union[Finding, _Mapping]]] = ..., check_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class Pipeline(_message.Message):
    __slots__ = ("name", "display_name", "description", "development_environments", "stages", "allow_redeployment", "etag", "create_time", "update_time", "owner", "shares")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DISPLAY_NAME_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    DEVELOPMENT_ENVIRONMENTS_FIELD_NUMBER: _ClassVar[int]
    STAGES_FIELD_NUMBER: _ClassVar[int]
    ALLOW_REDEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    UPDATE_TIME_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    SHARES_FIELD_NUMBER: _ClassVar[int]
    name: str
    display_name: str
    description: str
    development_environments: _containers.RepeatedScalarFieldContainer[str]
    stages: _containers.RepeatedCompositeFieldContainer[Stage]
    allow_redeployment: bool
    etag: str
    create_time: _timestamp_pb2.Timestamp
    update_time: _timestamp_pb2.Timestamp
    owner: str
    shares: _containers.RepeatedCompositeFieldContainer[Share]
    def __init__(self, name: _Optional[str] = ..., display_name: _Optional[str] = ..., description: _Optional[str] = ..., development_environments: _Optional[_Iterable[str]] = ..., stages: _Optional[_Iterable[_Union[Stage, _Mapping]]] = ..., allow_redeployment: _Optional[bool] = ..., etag: _Optional[str] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., update_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., owner: _Optional[str] = ..., shares: _Optional[_Iterable[_Union[Share, _Mapping]]] = ...) -> None: ...

class Share(_message.Message):
    __slots__ = ("principal", "access")
    class Access(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        ACCESS_UNSPECIFIED: _ClassVar[Share.Access]
        ACCESS_RUN: _ClassVar[Share.Access]
        ACCESS_EDIT: _ClassVar[Share.Access]
    ACCESS_UNSPECIFIED: Share.Access
    ACCESS_RUN: Share.Access
    ACCESS_EDIT: Share.Access
    PRINCIPAL_FIELD_NUMBER: _ClassVar[int]
    ACCESS_FIELD_NUMBER: _ClassVar[int]
    principal: str
    access: Share.Access
    def __init__(self, principal: _Optional[str] = ..., access: _Optional[_Union[Share.Access, str]] = ...) -> None: ...

class Principal(_message.Message):
    __slots__ = ("name", "display_name", "kind", "role", "person", "members", "identities", "disabled", "etag", "create_time", "update_time")
    class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        KIND_UNSPECIFIED: _ClassVar[Principal.Kind]
        KIND_PERSON: _ClassVar[Principal.Kind]
        KIND_SERVICE: _ClassVar[Principal.Kind]
        KIND_GROUP: _ClassVar[Principal.Kind]
    KIND_UNSPECIFIED: Principal.Kind
    KIND_PERSON: Principal.Kind
    KIND_SERVICE: Principal.Kind
    KIND_GROUP: Principal.Kind
    class Role(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        ROLE_UNSPECIFIED: _ClassVar[Principal.Role]
        ROLE_VIEWER: _ClassVar[Principal.Role]
        ROLE_USER: _ClassVar[Principal.Role]
        ROLE_MAKER: _ClassVar[Principal.Role]
        ROLE_ADMINISTRATOR: _ClassVar[Principal.Role]
    ROLE_UNSPECIFIED: Principal.Role
    ROLE_VIEWER: Principal.Role
    ROLE_USER: Principal.Role
    ROLE_MAKER: Principal.Role
    ROLE_ADMINISTRATOR: Principal.Role
    NAME_FIELD_NUMBER: _ClassVar[int]
    DISPLAY_NAME_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    PERSON_FIELD_NUMBER: _ClassVar[int]
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    IDENTITIES_FIELD_NUMBER: _ClassVar[int]
    DISABLED_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    UPDATE_TIME_FIELD_NUMBER: _ClassVar[int]
    name: str
    display_name: str
    kind: Principal.Kind
    role: Principal.Role
    person: str
    members: _containers.RepeatedScalarFieldContainer[str]
    identities: _containers.RepeatedCompositeFieldContainer[Identity]
    disabled: bool
    etag: str
    create_time: _timestamp_pb2.Timestamp
    update_time: _timestamp_pb2.Timestamp
    def __init__(self, name: _Optional[str] = ..., display_name: _Optional[str] = ..., kind: _Optional[_Union[Principal.Kind, str]] = ..., role: _Optional[_Union[Principal.Role, str]] = ..., person: _Optional[str] = ..., members: _Optional[_Iterable[str]] = ..., identities: _Optional[_Iterable[_Union[Identity, _Mapping]]] = ..., disabled: _Optional[bool] = ..., etag: _Optional[str] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., update_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class Identity(_message.Message):
    __slots__ = ("issuer", "subject", "certificate")
    ISSUER_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    issuer: str
    subject: str
    certificate: str
    def __init__(self, issuer: _Optional[str] = ..., subject: _Optional[str] = ..., certificate: _Optional[str] = ...) -> None: ...

class Token(_message.Message):
    __slots__ = ("name", "principal", "description", "create_time", "expire_time", "revoke_time")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PRINCIPAL_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    REVOKE_TIME_FIELD_NUMBER: _ClassVar[int]
    name: str
    principal: str
    description: str
    create_time: _timestamp_pb2.Timestamp
    expire_time: _timestamp_pb2.Timestamp
    revoke_time: _timestamp_pb2.Timestamp
    def __init__(self, name: _Optional[str] = ..., principal: _Optional[str] = ..., description: _Optional[str] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., revoke_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class Stage(_message.Message):
    __slots__ = ("name", "display_name", "description", "environment", "settings", "gates", "holds", "sign_in")
    class Hold(_message.Message):
        __slots__ = ("solution", "version", "reason")
        SOLUTION_FIELD_NUMBER: _ClassVar[int]
        VERSION_FIELD_NUMBER: _ClassVar[int]
        REASON_FIELD_NUMBER: _ClassVar[int]
        solution: str
        version: str
        reason: str
        def __init__(self, solution: _Optional[str] = ..., version: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    DISPLAY_NAME_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    GATES_FIELD_NUMBER: _ClassVar[int]
    HOLDS_FIELD_NUMBER: _ClassVar[int]
    SIGN_IN_FIELD_NUMBER: _ClassVar[int]
    name: str
    display_name: str
    description: str
    environment: str
    settings: DeploymentSettings
    gates: _containers.RepeatedCompositeFieldContainer[Gate]
    holds: _containers.RepeatedCompositeFieldContainer[Stage.Hold]
    sign_in: SignIn
    def __init__(self, name: _Optional[str] = ..., display_name: _Optional[str] = ..., description: _Optional[str] = ..., environment: _Optional[str] = ..., settings: _Optional[_Union[DeploymentSettings, _Mapping]] = ..., gates: _Optional[_Iterable[_Union[Gate, _Mapping]]] = ..., holds: _Optional[_Iterable[_Union[Stage.Hold, _Mapping]]] = ..., sign_in: _Optional[_Union[SignIn, _Mapping]] = ...) -> None: ...

class Freeze(_message.Message):
    __slots__ = ("name", "reason", "scope", "time_zone", "start", "end", "recurrence", "etag", "create_time", "update_time", "creator")
    NAME_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    TIME_ZONE_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    RECURRENCE_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    UPDATE_TIME_FIELD_NUMBER: _ClassVar[int]
    CREATOR_FIELD_NUMBER: _ClassVar[int]
    name: str
    reason: str
    scope: str
    time_zone: str
    start: str
    end: str
    recurrence: str
    etag: str
    create_time: _timestamp_pb2.Timestamp
    update_time: _timestamp_pb2.Timestamp
    creator: str
    def __init__(self, name: _Optional[str] = ..., reason: _Optional[str] = ..., scope: _Optional[str] = ..., time_zone: _Optional[str] = ..., start: _Optional[str] = ..., end: _Optional[str] = ..., recurrence: _Optional[str] = ..., etag: _Optional[str] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., update_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., creator: _Optional[str] = ...) -> None: ...

class Gate(_message.Message):
    __slots__ = ("kind", "approvers", "required", "timeout_seconds", "webhook")
    class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        KIND_UNSPECIFIED: _ClassVar[Gate.Kind]
        KIND_PRE_EXPORT: _ClassVar[Gate.Kind]
        KIND_APPROVAL: _ClassVar[Gate.Kind]
        KIND_PRE_DEPLOYMENT: _ClassVar[Gate.Kind]
    KIND_UNSPECIFIED: Gate.Kind
    KIND_PRE_EXPORT: Gate.Kind
    KIND_APPROVAL: Gate.Kind
    KIND_PRE_DEPLOYMENT: Gate.Kind
    KIND_FIELD_NUMBER: _ClassVar[int]
    APPROVERS_FIELD_NUMBER: _ClassVar[int]
    REQUIRED_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    WEBHOOK_FIELD_NUMBER: _ClassVar[int]
    kind: Gate.Kind
    approvers: _containers.RepeatedScalarFieldContainer[str]
    required: int
    timeout_seconds: int
    webhook: str
    def __init__(self, kind: _Optional[_Union[Gate.Kind, str]] = ..., approvers: _Optional[_Iterable[str]] = ..., required: _Optional[int] = ..., timeout_seconds: _Optional[int] = ..., webhook: _Optional[str] = ...) -> None: ...

class GateDecision(_message.Message):
    __slots__ = ("principal", "approved", "comment", "time")
    PRINCIPAL_FIELD_NUMBER: _ClassVar[int]
    APPROVED_FIELD_NUMBER: _ClassVar[int]
    COMMENT_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    principal: str
    approved: bool
    comment: str
    time: _timestamp_pb2.Timestamp
    def __init__(self, principal: _Optional[str] = ..., approved: _Optional[bool] = ..., comment: _Optional[str] = ..., time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class GateStatus(_message.Message):
    __slots__ = ("kind", "state", "decisions", "open_time", "expire_time", "bound_sha256", "gate", "delivery")
    class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        STATE_UNSPECIFIED: _ClassVar[GateStatus.State]
        STATE_WAITING: _ClassVar[GateStatus.State]
        STATE_APPROVED: _ClassVar[GateStatus.State]
        STATE_REJECTED: _ClassVar[GateStatus.State]
        STATE_EXPIRED: _ClassVar[GateStatus.State]
    STATE_UNSPECIFIED: GateStatus.State
    STATE_WAITING: GateStatus.State
    STATE_APPROVED: GateStatus.State
    STATE_REJECTED: GateStatus.State
    STATE_EXPIRED: GateStatus.State
    KIND_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    DECISIONS_FIELD_NUMBER: _ClassVar[int]
    OPEN_TIME_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    BOUND_SHA256_FIELD_NUMBER: _ClassVar[int]
    GATE_FIELD_NUMBER: _ClassVar[int]
    DELIVERY_FIELD_NUMBER: _ClassVar[int]
    kind: Gate.Kind
    state: GateStatus.State
    decisions: _containers.RepeatedCompositeFieldContainer[GateDecision]
    open_time: _timestamp_pb2.Timestamp
    expire_time: _timestamp_pb2.Timestamp
    bound_sha256: str
    gate: Gate
    delivery: Delivery
    def __init__(self, kind: _Optional[_Union[Gate.Kind, str]] = ..., state: _Optional[_Union[GateStatus.State, str]] = ..., decisions: _Optional[_Iterable[_Union[GateDecision, _Mapping]]] = ..., open_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., bound_sha256: _Optional[str] = ..., gate: _Optional[_Union[Gate, _Mapping]] = ..., delivery: _Optional[_Union[Delivery, _Mapping]] = ...) -> None: ...

class Delivery(_message.Message):
    __slots__ = ("attempts", "deliver_time", "error")
    ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    DELIVER_TIME_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    attempts: int
    deliver_time: _timestamp_pb2.Timestamp
    error: str
    def __init__(self, attempts: _Optional[int] = ..., deliver_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., error: _Optional[str] = ...) -> None: ...

class GateNote(_message.Message):
    __slots__ = ("run", "kind", "principal", "note", "time")
    RUN_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    PRINCIPAL_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    run: str
    kind: Gate.Kind
    principal: str
    note: str
    time: _timestamp_pb2.Timestamp
    def __init__(self, run: _Optional[str] = ..., kind: _Optional[_Union[Gate.Kind, str]] = ..., principal: _Optional[str] = ..., note: _Optional[str] = ..., time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class DeploymentSettings(_message.Message):
    __slots__ = ("environment_variables", "connection_references")
    ENVIRONMENT_VARIABLES_FIELD_NUMBER: _ClassVar[int]
    CONNECTION_REFERENCES_FIELD_NUMBER: _ClassVar[int]
    environment_variables: _containers.RepeatedCompositeFieldContainer[EnvironmentVariableSetting]
    connection_references: _containers.RepeatedCompositeFieldContainer[ConnectionReferenceSetting]
    def __init__(self, environment_variables: _Optional[_Iterable[_Union[EnvironmentVariableSetting, _Mapping]]] = ..., connection_references: _Optional[_Iterable[_Union[ConnectionReferenceSetting, _Mapping]]] = ...) -> None: ...

class EnvironmentVariableSetting(_message.Message):
    __slots__ = ("schema_name", "value")
    SCHEMA_NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    schema_name: str
    value: str
    def __init__(self, schema_name: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...

class ConnectionReferenceSetting(_message.Message):
    __slots__ = ("logical_name", "connection_id", "connector_id")
    LOGICAL_NAME_FIELD_NUMBER: _ClassVar[int]
    CONNECTION_ID_FIELD_NUMBER: _ClassVar[int]
    CONNECTOR_ID_FIELD_NUMBER: _ClassVar[int]
    logical_name: str
    connection_id: str
    connector_id: str
    def __init__(self, logical_name: _Optional[str] = ..., connection_id: _Optional[str] = ..., connector_id: _Optional[str] = ...) -> None: ...

class Setting(_message.Message):
    __slots__ = ("name", "kind", "display_name", "type", "required", "value", "source", "connector_id", "candidate_connections", "sha256")
    class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        KIND_UNSPECIFIED: _ClassVar[Setting.Kind]
        KIND_ENVIRONMENT_VARIABLE: _ClassVar[Setting.Kind]
        KIND_CONNECTION_REFERENCE: _ClassVar[Setting.Kind]
    KIND_UNSPECIFIED: Setting.Kind
    KIND_ENVIRONMENT_VARIABLE: Setting.Kind
    KIND_CONNECTION_REFERENCE: Setting.Kind
    NAME_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    DISPLAY_NAME_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    REQUIRED_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    CONNECTOR_ID_FIELD_NUMBER: _ClassVar[int]
    CANDIDATE_CONNECTIONS_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    name: str
    kind: Setting.Kind
    display_name: str
    type: str
    required: bool
    value: str
    source: SettingSource
    connector_id: str
    candidate_connections: _containers.RepeatedScalarFieldContainer[str]
    sha256: str
    def __init__(self, name: _Optional[str] = ..., kind: _Optional[_Union[Setting.Kind, str]] = ..., display_name: _Optional[str] = ..., type: _Optional[str] = ..., required: _Optional[bool] = ..., value: _Optional[str] = ..., source: _Optional[_Union[SettingSource, str]] = ..., connector_id: _Optional[str] = ..., candidate_connections: _Optional[_Iterable[str]] = ..., sha256: _Optional[str] = ...) -> None: ...

class Artifact(_message.Message):
    __slots__ = ("name", "solution", "display_name", "version", "managed", "publisher", "size", "source_sha256", "source_environment", "component_count", "creator", "create_time", "block")
    class Block(_message.Message):
        __slots__ = ("reason", "principal", "time")
        REASON_FIELD_NUMBER: _ClassVar[int]
        PRINCIPAL_FIELD_NUMBER: _ClassVar[int]
        TIME_FIELD_NUMBER: _ClassVar[int]
        reason: str
        principal: str
        time: _timestamp_pb2.Timestamp
        def __init__(self, reason: _Optional[str] = ..., principal: _Optional[str] = ..., time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    SOLUTION_FIELD_NUMBER: _ClassVar[int]
    DISPLAY_NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    MANAGED_FIELD_NUMBER: _ClassVar[int]
    PUBLISHER_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    SOURCE_SHA256_FIELD_NUMBER: _ClassVar[int]
    SOURCE_ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    COMPONENT_COUNT_FIELD_NUMBER: _ClassVar[int]
    CREATOR_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    BLOCK_FIELD_NUMBER: _ClassVar[int]
    name: str
    solution: str
    display_name: str
    version: str
    managed: bool
    publisher: str
    size: int
    source_sha256: str
    source_environment: str
    component_count: int
    creator: str
    create_time: _timestamp_pb2.Timestamp
    block: Artifact.Block
    def __init__(self, name: _Optional[str] = ..., solution: _Optional[str] = ..., display_name: _Optional[str] = ..., version: _Optional[str] = ..., managed: _Optional[bool] = ..., publisher: _Optional[str] = ..., size: _Optional[int] = ..., source_sha256: _Optional[str] = ..., source_environment: _Optional[str] = ..., component_count: _Optional[int] = ..., creator: _Optional[str] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., block: _Optional[_Union[Artifact.Block, _Mapping]] = ...) -> None: ...

class Run(_message.Message):
    __slots__ = ("name", "state", "pipeline", "stage", "solution", "version", "artifact", "source_environment", "target_environment", "requester", "note", "import_mode", "overwrite_customizations", "attempt", "steps", "error", "error_count", "warning_count", "settings_sha256", "previous_version", "revision", "requested_version", "create_time", "start_time", "end_time", "schedule_time", "override_reason", "deployed_as", "loss_sha256", "gates", "wait")
    class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        STATE_UNSPECIFIED: _ClassVar[Run.State]
        STATE_QUEUED: _ClassVar[Run.State]
        STATE_VALIDATING: _ClassVar[Run.State]
        STATE_AWAITING_GATE: _ClassVar[Run.State]
        STATE_SCHEDULED: _ClassVar[Run.State]
        STATE_WAITING_FOR_TARGET: _ClassVar[Run.State]
        STATE_DEPLOYING: _ClassVar[Run.State]
        STATE_CANCELLING: _ClassVar[Run.State]
        STATE_UNKNOWN: _ClassVar[Run.State]
        STATE_SUCCEEDED: _ClassVar[Run.State]
        STATE_FAILED: _ClassVar[Run.State]
        STATE_REJECTED: _ClassVar[Run.State]
        STATE_EXPIRED: _ClassVar[Run.State]
        STATE_CANCELLED: _ClassVar[Run.State]
    STATE_UNSPECIFIED: Run.State
    STATE_QUEUED: Run.State
    STATE_VALIDATING: Run.State
    STATE_AWAITING_GATE: Run.State
    STATE_SCHEDULED: Run.State
    STATE_WAITING_FOR_TARGET: Run.State
    STATE_DEPLOYING: Run.State
    STATE_CANCELLING: Run.State
    STATE_UNKNOWN: Run.State
    STATE_SUCCEEDED: Run.State
    STATE_FAILED: Run.State
    STATE_REJECTED: Run.State
    STATE_EXPIRED: Run.State
    STATE_CANCELLED: Run.State
    class Wait(_message.Message):
        __slots__ = ("until", "freeze", "reason")
        UNTIL_FIELD_NUMBER: _ClassVar[int]
        FREEZE_FIELD_NUMBER: _ClassVar[int]
        REASON_FIELD_NUMBER: _ClassVar[int]
        until: _timestamp_pb2.Timestamp
        freeze: str
        reason: str
        def __init__(self, until: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., freeze: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    PIPELINE_FIELD_NUMBER: _ClassVar[int]
    STAGE_FIELD_NUMBER: _ClassVar[int]
    SOLUTION_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    ARTIFACT_FIELD_NUMBER: _ClassVar[int]
    SOURCE_ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    TARGET_ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    REQUESTER_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    IMPORT_MODE_FIELD_NUMBER: _ClassVar[int]
    OVERWRITE_CUSTOMIZATIONS_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    ERROR_COUNT_FIELD_NUMBER: _ClassVar[int]
    WARNING_COUNT_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_SHA256_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_VERSION_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    REQUESTED_VERSION_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    END_TIME_FIELD_NUMBER: _ClassVar[int]
    SCHEDULE_TIME_FIELD_NUMBER: _ClassVar[int]
    OVERRIDE_REASON_FIELD_NUMBER: _ClassVar[int]
    DEPLOYED_AS_FIELD_NUMBER: _ClassVar[int]
    LOSS_SHA256_FIELD_NUMBER: _ClassVar[int]
    GATES_FIELD_NUMBER: _ClassVar[int]
    WAIT_FIELD_NUMBER: _ClassVar[int]
    name: str
    state: Run.State
    pipeline: str
    stage: str
    solution: str
    version: str
    artifact: str
    source_environment: str
    target_environment: str
    requester: str
    note: str
    import_mode: ImportMode
    overwrite_customizations: bool
    attempt: int
    steps: _containers.RepeatedCompositeFieldContainer[Step]
    error: RunError
    error_count: int
    warning_count: int
    settings_sha256: str
    previous_version: str
    revision: int
    requested_version: str
    create_time: _timestamp_pb2.Timestamp
    start_time: _timestamp_pb2.Timestamp
    end_time: _timestamp_pb2.Timestamp
    schedule_time: _timestamp_pb2.Timestamp
    override_reason: str
    deployed_as: str
    loss_sha256: str
    gates: _containers.RepeatedCompositeFieldContainer[GateStatus]
    wait: Run.Wait
    def __init__(self, name: _Optional[str] = ..., state: _Optional[_Union[Run.State, str]] = ..., pipeline: _Optional[str] = ..., stage: _Optional[str] = ..., solution: _Optional[str] = ..., version: _Optional[str] = ..., artifact: _Optional[str] = ..., source_environment: _Optional[str] = ..., target_environment: _Optional[str] = ..., requester: _Optional[str] = ..., note: _Optional[str] = ..., import_mode: _Optional[_Union[ImportMode, str]] = ..., overwrite_customizations: _Optional[bool] = ..., attempt: _Optional[int] = ..., steps: _Optional[_Iterable[_Union[Step, _Mapping]]] = ..., error: _Optional[_Union[RunError, _Mapping]] = ..., error_count: _Optional[int] = ..., warning_count: _Optional[int] = ..., settings_sha256: _Optional[str] = ..., previous_version: _Optional[str] = ..., revision: _Optional[int] = ..., requested_version: _Optional[str] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., start_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., end_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., schedule_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., override_reason: _Optional[str] = ..., deployed_as: _Optional[str] = ..., loss_sha256: _Optional[str] = ..., gates: _Optional[_Iterable[_Union[GateStatus, _Mapping]]] = ..., wait: _Optional[_Union[Run.Wait, _Mapping]] = ...) -> None: ...

class Step(_message.Message):
    __slots__ = ("kind", "state", "detail", "percent", "start_time", "end_time")
    class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        KIND_UNSPECIFIED: _ClassVar[Step.Kind]
        KIND_EXPORT: _ClassVar[Step.Kind]
        KIND_VALIDATE: _ClassVar[Step.Kind]
        KIND_IMPORT: _ClassVar[Step.Kind]
        KIND_PUBLISH: _ClassVar[Step.Kind]
        KIND_VERIFY: _ClassVar[Step.Kind]
    KIND_UNSPECIFIED: Step.Kind
    KIND_EXPORT: Step.Kind
    KIND_VALIDATE: Step.Kind
    KIND_IMPORT: Step.Kind
    KIND_PUBLISH: Step.Kind
    KIND_VERIFY: Step.Kind
    class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        STATE_UNSPECIFIED: _ClassVar[Step.State]
        STATE_PENDING: _ClassVar[Step.State]
        STATE_RUNNING: _ClassVar[Step.State]
        STATE_SUCCEEDED: _ClassVar[Step.State]
        STATE_FAILED: _ClassVar[Step.State]
        STATE_SKIPPED: _ClassVar[Step.State]
    STATE_UNSPECIFIED: Step.State
    STATE_PENDING: Step.State
    STATE_RUNNING: Step.State
    STATE_SUCCEEDED: Step.State
    STATE_FAILED: Step.State
    STATE_SKIPPED: Step.State
    KIND_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    PERCENT_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    END_TIME_FIELD_NUMBER: _ClassVar[int]
    kind: Step.Kind
    state: Step.State
    detail: str
    percent: int
    start_time: _timestamp_pb2.Timestamp
    end_time: _timestamp_pb2.Timestamp
    def __init__(self, kind: _Optional[_Union[Step.Kind, str]] = ..., state: _Optional[_Union[Step.State, str]] = ..., detail: _Optional[str] = ..., percent: _Optional[int] = ..., start_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., end_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class RunError(_message.Message):
    __slots__ = ("code", "message", "remedy", "retryable", "step")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    REMEDY_FIELD_NUMBER: _ClassVar[int]
    RETRYABLE_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    code: str
    message: str
    remedy: str
    retryable: bool
    step: Step.Kind
    def __init__(self, code: _Optional[str] = ..., message: _Optional[str] = ..., remedy: _Optional[str] = ..., retryable: _Optional[bool] = ..., step: _Optional[_Union[Step.Kind, str]] = ...) -> None: ...

class Finding(_message.Message):
    __slots__ = ("code", "severity", "subject", "cause", "remedy", "retryable", "step")
    class Severity(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        SEVERITY_UNSPECIFIED: _ClassVar[Finding.Severity]
        SEVERITY_INFO: _ClassVar[Finding.Severity]
        SEVERITY_WARNING: _ClassVar[Finding.Severity]
        SEVERITY_ERROR: _ClassVar[Finding.Severity]
    SEVERITY_UNSPECIFIED: Finding.Severity
    SEVERITY_INFO: Finding.Severity
    SEVERITY_WARNING: Finding.Severity
    SEVERITY_ERROR: Finding.Severity
    CODE_FIELD_NUMBER: _ClassVar[int]
    SEVERITY_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    CAUSE_FIELD_NUMBER: _ClassVar[int]
    REMEDY_FIELD_NUMBER: _ClassVar[int]
    RETRYABLE_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    code: str
    severity: Finding.Severity
    subject: Subject
    cause: str
    remedy: str
    retryable: bool
    step: Step.Kind
    def __init__(self, code: _Optional[str] = ..., severity: _Optional[_Union[Finding.Severity, str]] = ..., subject: _Optional[_Union[Subject, _Mapping]] = ..., cause: _Optional[str] = ..., remedy: _Optional[str] = ..., retryable: _Optional[bool] = ..., step: _Optional[_Union[Step.Kind, str]] = ...) -> None: ...

class Subject(_message.Message):
    __slots__ = ("kind", "name", "display_name")
    KIND_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    DISPLAY_NAME_FIELD_NUMBER: _ClassVar[int]
    kind: str
    name: str
    display_name: str
    def __init__(self, kind: _Optional[str] = ..., name: _Optional[str] = ..., display_name: _Optional[str] = ...) -> None: ...

class ComponentResult(_message.Message):
    __slots__ = ("component", "result", "error_code", "error_text")
    COMPONENT_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    ERROR_CODE_FIELD_NUMBER: _ClassVar[int]
    ERROR_TEXT_FIELD_NUMBER: _ClassVar[int]
    component: Subject
    result: str
    error_code: str
    error_text: str
    def __init__(self, component: _Optional[_Union[Subject, _Mapping]] = ..., result: _Optional[str] = ..., error_code: _Optional[str] = ..., error_text: _Optional[str] = ...) -> None: ...

class Component(_message.Message):
    __slots__ = ("kind", "name", "display_name")
    KIND_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    DISPLAY_NAME_FIELD_NUMBER: _ClassVar[int]
    kind: str
    name: str
    display_name: str
    def __init__(self, kind: _Optional[str] = ..., name: _Optional[str] = ..., display_name: _Optional[str] = ...) -> None: ...

class Requirement(_message.Message):
    __slots__ = ("required", "dependent", "solution")
    REQUIRED_FIELD_NUMBER: _ClassVar[int]
    DEPENDENT_FIELD_NUMBER: _ClassVar[int]
    SOLUTION_FIELD_NUMBER: _ClassVar[int]
    required: Subject
    dependent: Subject
    solution: str
    def __init__(self, required: _Optional[_Union[Subject, _Mapping]] = ..., dependent: _Optional[_Union[Subject, _Mapping]] = ..., solution: _Optional[str] = ...) -> None: ...

class Solution(_message.Message):
    __slots__ = ("unique_name", "display_name", "version", "managed", "publisher")
    UNIQUE_NAME_FIELD_NUMBER: _ClassVar[int]
    DISPLAY_NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    MANAGED_FIELD_NUMBER: _ClassVar[int]
    PUBLISHER_FIELD_NUMBER: _ClassVar[int]
    unique_name: str
    display_name: str
    version: str
    managed: bool
    publisher: str
    def __init__(self, unique_name: _Optional[str] = ..., display_name: _Optional[str] = ..., version: _Optional[str] = ..., managed: _Optional[bool] = ..., publisher: _Optional[str] = ...) -> None: ...

class Connection(_message.Message):
    __slots__ = ("name", "display_name", "connector_id", "status")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DISPLAY_NAME_FIELD_NUMBER: _ClassVar[int]
    CONNECTOR_ID_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    name: str
    display_name: str
    connector_id: str
    status: str
    def __init__(self, name: _Optional[str] = ..., display_name: _Optional[str] = ..., connector_id: _Optional[str] = ..., status: _Optional[str] = ...) -> None: ...

class Event(_message.Message):
    __slots__ = ("sequence", "time", "kind", "actor", "subject", "run", "step", "finding", "progress", "pipeline", "environment", "artifact", "connection", "checkpoint", "fault", "head", "principal", "token", "gate", "freeze", "message", "peer", "pipeline_before", "environment_before", "principal_before", "freeze_before")
    class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        KIND_UNSPECIFIED: _ClassVar[Event.Kind]
        KIND_ENVIRONMENT_CREATED: _ClassVar[Event.Kind]
        KIND_ENVIRONMENT_UPDATED: _ClassVar[Event.Kind]
        KIND_ENVIRONMENT_DELETED: _ClassVar[Event.Kind]
        KIND_PIPELINE_CREATED: _ClassVar[Event.Kind]
        KIND_PIPELINE_UPDATED: _ClassVar[Event.Kind]
        KIND_PIPELINE_DELETED: _ClassVar[Event.Kind]
        KIND_CONNECTION_CREATED: _ClassVar[Event.Kind]
        KIND_CONNECTION_DELETED: _ClassVar[Event.Kind]
        KIND_ARTIFACT_STORED: _ClassVar[Event.Kind]
        KIND_ARTIFACT_DOWNLOADED: _ClassVar[Event.Kind]
        KIND_DEPLOYMENT_VALIDATED: _ClassVar[Event.Kind]
        KIND_DEPLOYMENT_REQUESTED: _ClassVar[Event.Kind]
        KIND_RUN_STATE_CHANGED: _ClassVar[Event.Kind]
        KIND_STEP_CHANGED: _ClassVar[Event.Kind]
        KIND_FINDING: _ClassVar[Event.Kind]
        KIND_PROGRESS: _ClassVar[Event.Kind]
        KIND_RUN_RESOLVED: _ClassVar[Event.Kind]
        KIND_HOST_STARTED: _ClassVar[Event.Kind]
        KIND_CREDENTIAL_SET: _ClassVar[Event.Kind]
        KIND_EVENTS_EXPORTED: _ClassVar[Event.Kind]
        KIND_EVENTS_PRUNED: _ClassVar[Event.Kind]
        KIND_RECORD_BROKEN: _ClassVar[Event.Kind]
        KIND_RUN_RESCHEDULED: _ClassVar[Event.Kind]
        KIND_PRINCIPAL_CREATED: _ClassVar[Event.Kind]
        KIND_PRINCIPAL_UPDATED: _ClassVar[Event.Kind]
        KIND_PRINCIPAL_DELETED: _ClassVar[Event.Kind]
        KIND_TOKEN_CREATED: _ClassVar[Event.Kind]
        KIND_TOKEN_REVOKED: _ClassVar[Event.Kind]
        KIND_GATE_OPENED: _ClassVar[Event.Kind]
        KIND_GATE_DECIDED: _ClassVar[Event.Kind]
        KIND_GATE_VOIDED: _ClassVar[Event.Kind]
        KIND_GATE_NOTIFIED: _ClassVar[Event.Kind]
        KIND_FREEZE_CREATED: _ClassVar[Event.Kind]
        KIND_FREEZE_UPDATED: _ClassVar[Event.Kind]
        KIND_FREEZE_DELETED: _ClassVar[Event.Kind]
        KIND_FREEZE_OVERRIDDEN: _ClassVar[Event.Kind]
        KIND_ARTIFACT_BLOCKED: _ClassVar[Event.Kind]
        KIND_ARTIFACT_UNBLOCKED: _ClassVar[Event.Kind]
        KIND_ENVIRONMENT_TAKEN_OVER: _ClassVar[Event.Kind]
        KIND_ENVIRONMENT_STALE: _ClassVar[Event.Kind]
    KIND_UNSPECIFIED: Event.Kind
    KIND_ENVIRONMENT_CREATED: Event.Kind
    KIND_ENVIRONMENT_UPDATED: Event.Kind
    KIND_ENVIRONMENT_DELETED: Event.Kind
    KIND_PIPELINE_CREATED: Event.Kind
    KIND_PIPELINE_UPDATED: Event.Kind
    KIND_PIPELINE_DELETED: Event.Kind
    KIND_CONNECTION_CREATED: Event.Kind
    KIND_CONNECTION_DELETED: Event.Kind
    KIND_ARTIFACT_STORED: Event.Kind
    KIND_ARTIFACT_DOWNLOADED: Event.Kind
    KIND_DEPLOYMENT_VALIDATED: Event.Kind
    KIND_DEPLOYMENT_REQUESTED: Event.Kind
    KIND_RUN_STATE_CHANGED: Event.Kind
    KIND_STEP_CHANGED: Event.Kind
    KIND_FINDING: Event.Kind
    KIND_PROGRESS: Event.Kind
    KIND_RUN_RESOLVED: Event.Kind
    KIND_HOST_STARTED: Event.Kind
    KIND_CREDENTIAL_SET: Event.Kind
    KIND_EVENTS_EXPORTED: Event.Kind
    KIND_EVENTS_PRUNED: Event.Kind
    KIND_RECORD_BROKEN: Event.Kind
    KIND_RUN_RESCHEDULED: Event.Kind
    KIND_PRINCIPAL_CREATED: Event.Kind
    KIND_PRINCIPAL_UPDATED: Event.Kind
    KIND_PRINCIPAL_DELETED: Event.Kind
    KIND_TOKEN_CREATED: Event.Kind
    KIND_TOKEN_REVOKED: Event.Kind
    KIND_GATE_OPENED: Event.Kind
    KIND_GATE_DECIDED: Event.Kind
    KIND_GATE_VOIDED: Event.Kind
    KIND_GATE_NOTIFIED: Event.Kind
    KIND_FREEZE_CREATED: Event.Kind
    KIND_FREEZE_UPDATED: Event.Kind
    KIND_FREEZE_DELETED: Event.Kind
    KIND_FREEZE_OVERRIDDEN: Event.Kind
    KIND_ARTIFACT_BLOCKED: Event.Kind
    KIND_ARTIFACT_UNBLOCKED: Event.Kind
    KIND_ENVIRONMENT_TAKEN_OVER: Event.Kind
    KIND_ENVIRONMENT_STALE: Event.Kind
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    FINDING_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    PIPELINE_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    ARTIFACT_FIELD_NUMBER: _ClassVar[int]
    CONNECTION_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    FAULT_FIELD_NUMBER: _ClassVar[int]
    HEAD_FIELD_NUMBER: _ClassVar[int]
    PRINCIPAL_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    GATE_FIELD_NUMBER: _ClassVar[int]
    FREEZE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    PEER_FIELD_NUMBER: _ClassVar[int]
    PIPELINE_BEFORE_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_BEFORE_FIELD_NUMBER: _ClassVar[int]
    PRINCIPAL_BEFORE_FIELD_NUMBER: _ClassVar[int]
    FREEZE_BEFORE_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    time: _timestamp_pb2.Timestamp
    kind: Event.Kind
    actor: str
    subject: str
    run: RunChange
    step: Step
    finding: Finding
    progress: Progress
    pipeline: Pipeline
    environment: Environment
    artifact: Artifact
    connection: Connection
    checkpoint: Checkpoint
    fault: RecordFault
    head: RecordHead
    principal: Principal
    token: Token
    gate: GateStatus
    freeze: Freeze
    message: str
    peer: str
    pipeline_before: Pipeline
    environment_before: Environment
    principal_before: Principal
    freeze_before: Freeze
    def __init__(self, sequence: _Optional[int] = ..., time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., kind: _Optional[_Union[Event.Kind, str]] = ..., actor: _Optional[str] = ..., subject: _Optional[str] = ..., run: _Optional[_Union[RunChange, _Mapping]] = ..., step: _Optional[_Union[Step, _Mapping]] = ..., finding: _Optional[_Union[Finding, _Mapping]] = ..., progress: _Optional[_Union[Progress, _Mapping]] = ..., pipeline: _Optional[_Union[Pipeline, _Mapping]] = ..., environment: _Optional[_Union[Environment, _Mapping]] = ..., artifact: _Optional[_Union[Artifact, _Mapping]] = ..., connection: _Optional[_Union[Connection, _Mapping]] = ..., checkpoint: _Optional[_Union[Checkpoint, _Mapping]] = ..., fault: _Optional[_Union[RecordFault, _Mapping]] = ..., head: _Optional[_Union[RecordHead, _Mapping]] = ..., principal: _Optional[_Union[Principal, _Mapping]] = ..., token: _Optional[_Union[Token, _Mapping]] = ..., gate: _Optional[_Union[GateStatus, _Mapping]] = ..., freeze: _Optional[_Union[Freeze, _Mapping]] = ..., message: _Optional[str] = ..., peer: _Optional[str] = ..., pipeline_before: _Optional[_Union[Pipeline, _Mapping]] = ..., environment_before: _Optional[_Union[Environment, _Mapping]] = ..., principal_before: _Optional[_Union[Principal, _Mapping]] = ..., freeze_before: _Optional[_Union[Freeze, _Mapping]] = ...) -> None: ...

class RecordHead(_message.Message):
    __slots__ = ("store", "first_sequence", "previous_sha256", "last_sequence", "sha256", "time", "key", "signature")
    STORE_FIELD_NUMBER: _ClassVar[int]
    FIRST_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_SHA256_FIELD_NUMBER: _ClassVar[int]
    LAST_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    store: str
    first_sequence: int
    previous_sha256: str
    last_sequence: int
    sha256: str
    time: _timestamp_pb2.Timestamp
    key: str
    signature: str
    def __init__(self, store: _Optional[str] = ..., first_sequence: _Optional[int] = ..., previous_sha256: _Optional[str] = ..., last_sequence: _Optional[int] = ..., sha256: _Optional[str] = ..., time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., key: _Optional[str] = ..., signature: _Optional[str] = ...) -> None: ...

class Checkpoint(_message.Message):
    __slots__ = ("sequence", "sha256", "dropped", "before", "forced")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    DROPPED_FIELD_NUMBER: _ClassVar[int]
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    FORCED_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    sha256: str
    dropped: int
    before: _timestamp_pb2.Timestamp
    forced: bool
    def __init__(self, sequence: _Optional[int] = ..., sha256: _Optional[str] = ..., dropped: _Optional[int] = ..., before: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., forced: _Optional[bool] = ...) -> None: ...

class RecordFault(_message.Message):
    __slots__ = ("kind", "sequence", "message")
    class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        KIND_UNSPECIFIED: _ClassVar[RecordFault.Kind]
        KIND_CHANGED: _ClassVar[RecordFault.Kind]
        KIND_MISSING: _ClassVar[RecordFault.Kind]
        KIND_INSERTED: _ClassVar[RecordFault.Kind]
        KIND_REORDERED: _ClassVar[RecordFault.Kind]
        KIND_TRUNCATED: _ClassVar[RecordFault.Kind]
        KIND_UNSIGNED: _ClassVar[RecordFault.Kind]
        KIND_FORKED: _ClassVar[RecordFault.Kind]
    KIND_UNSPECIFIED: RecordFault.Kind
    KIND_CHANGED: RecordFault.Kind
    KIND_MISSING: RecordFault.Kind
    KIND_INSERTED: RecordFault.Kind
    KIND_REORDERED: RecordFault.Kind
    KIND_TRUNCATED: RecordFault.Kind
    KIND_UNSIGNED: RecordFault.Kind
    KIND_FORKED: RecordFault.Kind
    KIND_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    kind: RecordFault.Kind
    sequence: int
    message: str
    def __init__(self, kind: _Optional[_Union[RecordFault.Kind, str]] = ..., sequence: _Optional[int] = ..., message: _Optional[str] = ...) -> None: ...

class RunChange(_message.Message):
    __slots__ = ("to", "error", "artifact", "version", "attempt", "deployed_as", "loss_sha256")
    FROM_FIELD_NUMBER: _ClassVar[int]
    TO_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    ARTIFACT_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    DEPLOYED_AS_FIELD_NUMBER: _ClassVar[int]
    LOSS_SHA256_FIELD_NUMBER: _ClassVar[int]
    to: Run.State
    error: RunError
    artifact: str
    version: str
    attempt: int
    deployed_as: str
    loss_sha256: str
    def __init__(self, to: _Optional[_Union[Run.State, str]] = ..., error: _Optional[_Union[RunError, _Mapping]] = ..., artifact: _Optional[str] = ..., version: _Optional[str] = ..., attempt: _Optional[int] = ..., deployed_as: _Optional[str] = ..., loss_sha256: _Optional[str] = ..., **kwargs) -> None: ...

class Progress(_message.Message):
    __slots__ = ("step", "percent", "detail")
    STEP_FIELD_NUMBER: _ClassVar[int]
    PERCENT_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    step: Step.Kind
    percent: int
    detail: str
    def __init__(self, step: _Optional[_Union[Step.Kind, str]] = ..., percent: _Optional[int] = ..., detail: _Optional[str] = ...) -> None: ...
