-- Read the replication id of the server.
-- KEYS  none
-- reply its number, 0 = unknown
-- include replid
return replication_id()
