-- Functions for scripts that do the rest of their work where a key cannot be used.
local unusable = {}
-- Run a command. If it fails, name its key in the reply, and return nil.
local function try(command, key, ...)
  local reply = redis.pcall(command, key, ...)
  if type(reply) == 'table' and reply.err then
    unusable[#unusable + 1] = key
    return nil
  end
  return reply
end
