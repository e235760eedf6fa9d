"""Everything about Dataverse: solution packages, its Web API, and embedded environments.

It knows nothing of gRPC or of the host.
"""
