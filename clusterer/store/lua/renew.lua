-- Renew leases.
-- KEYS  lease ...
-- ARGV  token, lease ms
-- reply for each lease 1, 0 if it is somebody else's or gone
local held = {}
for i, lease in ipairs(KEYS) do
  held[i] = 0
  if redis.pcall('GET', lease) == ARGV[1] then
    redis.call('PEXPIRE', lease, ARGV[2])
    held[i] = 1
  end
end
return held
