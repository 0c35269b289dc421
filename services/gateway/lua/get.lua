local value = kept(ARGV[1])
if not value then return {} end
return {NOW - tonumber(string.sub(value, 1, AHEAD)), string.sub(value, AHEAD + 1)}
