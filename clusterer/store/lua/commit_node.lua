-- Replace one node if its version is still the version that the caller read.
-- If another key than the node's holds a wrong type, the script still changes the node, leaves that
-- key as it is, and names it in the reply. Without a usable counter the script counts from the
-- node's own version.
-- Any suspicion of the node ends: it was one of another version.
-- KEYS  node, version, due, dirty, events, suspicions
-- ARGV  version read, machine_id, due ms ('' = never), cap of the events stream,
--       time of the suspicion that is concluded ('' = none), 1 if a new epoch begins, else 0,
--       number of hash fields, field, value, ..., then the audit event's field, value, ...
-- reply {the node's new version, keys that could not be used, ...}, {0} if the node was changed or
--       removed, or the suspicion ended in between
-- include unusable
if redis.call('HGET', KEYS[1], 'version') ~= ARGV[1] then
  return {0}
end
local suspicion = try('HGET', KEYS[6], ARGV[2])
if suspicion then
  if ARGV[5] ~= '' and string.match(suspicion, '^%d+') ~= ARGV[5] then
    return {0, unpack(unusable)}
  end
  try('HDEL', KEYS[6], ARGV[2])
elseif ARGV[5] ~= '' then
  return {0, unpack(unusable)}
end
local version = try('INCR', KEYS[2]) or ARGV[1] + 1
local fields = tonumber(ARGV[7])
for i = 8, 7 + fields * 2, 2 do
  redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
end
redis.call('HSET', KEYS[1], 'version', version)
if ARGV[6] == '1' then
  redis.call('HSET', KEYS[1], 'epoch', version)
end
if ARGV[3] == '' then
  try('ZREM', KEYS[3], ARGV[2])
else
  try('ZADD', KEYS[3], ARGV[3], ARGV[2])
end
try('ZADD', KEYS[4], version, ARGV[2])
local event = {}
for i = 8 + fields * 2, #ARGV do
  event[#event + 1] = ARGV[i]
end
try('XADD', KEYS[5], 'MAXLEN', '~', ARGV[4], '*', 'version', version, unpack(event))
return {version, unpack(unusable)}
