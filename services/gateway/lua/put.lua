local LASTS, MOST = tonumber(ARGV[2]), tonumber(ARGV[3])
return keep(ARGV[1], string.format('%013d', NOW) .. ARGV[4], LASTS, MOST)
