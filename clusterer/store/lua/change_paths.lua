-- Change or delete path records of a sender that are still as they were read.
-- KEYS  counters of records, records of the sender, then for each record the path events
-- ARGV  sender, cap of the streams of path events, then for each record: field, record as it was
--       read ('' = as it is), record ('' = none), number of the next arguments, the event's
--       field, value, ... (none: the path's condition is the same)
-- reply {unusable keys that were replaced}, then for each record 1 changed, 0 it was not
--       as it was read
-- include healing
-- include paths
heal(KEYS[1], 'hash')
heal(KEYS[2], 'hash')
local reply, written, at = {replaced}, false, 3
for keys = 3, #KEYS do
  local field, read, record = unpack(ARGV, at, at + 2)
  local first, last = at + 4, at + 3 + ARGV[at + 3]
  at = last + 1
  local same = read == '' or redis.call('HGET', KEYS[2], field) == read
  if same then
    write_record(KEYS[2], field, record)
    written = true
    record_event(KEYS[keys], ARGV[2], first, last)
  end
  reply[#reply + 1] = same and 1 or 0
end
if written then
  tell(KEYS[1], KEYS[2], ARGV[1])
end
return reply
