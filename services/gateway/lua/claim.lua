local LEASE = tonumber(ARGV[4])
local value = kept(NAME)
if value then
  local result = result_in(value)
  return result and {'finished', result} or {'other'}
end
local owner, content = held()
if owner and owner ~= OWNER then return {content == CONTENT and 'running' or 'other'} end
redis.call('HSET', CLAIM, 'owner', OWNER, 'content', CONTENT, 'ends', NOW + LEASE)
redis.call('PEXPIRE', CLAIM, LEASE + 60000)
return {'claimed'}
