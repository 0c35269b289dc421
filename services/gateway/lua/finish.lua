local LASTS, MOST, RESULT = tonumber(ARGV[4]), tonumber(ARGV[5]), ARGV[6]
local value, owner, content = kept(NAME), held()
give_up()
if value then return result_in(value) or RESULT end
if not owner or owner == OWNER or content == CONTENT then keep(NAME, CONTENT .. RESULT, LASTS, MOST) end
return RESULT
