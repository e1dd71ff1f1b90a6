/**
 * Counts that replicas share. Redis' own clock says which minute and which day it is, so those of the replicas need not agree.
 *
 * Keys, after the prefix: `limits:minute:<name>` and `limits:request:<name>` numbers that expire a minute after the first count,
 * `limits:day:<name>:<day since the epoch>` numbers, `limits:place:<name>` sorted sets of who has a place, by when it is taken from
 * whoever does not renew it.
 */

/**
 * ARGV: whose the places are, how long they have them (ms), then of each count: kind, name, limit, cost. All are raised, or none; those
 * of kind `request` in any case. Answers 0, or which of them refuses (from 1) and after how many milliseconds it may not.
 */
export const COUNT_TAKE = `
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local day = math.floor(now / 86400000)
local who, lease = ARGV[1], tonumber(ARGV[2])
local whole = function(n) return string.format('%.0f', n) end
local keys, refused, wait = {}, 0, 0
for at = 3, #ARGV, 4 do
  local kind, limit, cost = ARGV[at], tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3])
  local key = prefix .. 'limits:' .. kind .. ':' .. ARGV[at + 1]
  if kind == 'day' then key = key .. ':' .. whole(day) end
  keys[at] = key
  local full, till = false, 0
  if kind == 'place' then
    redis.call('ZREMRANGEBYSCORE', key, '-inf', whole(now))
    full = not redis.call('ZSCORE', key, who) and redis.call('ZCARD', key) >= limit
    till = 1000
  elseif kind == 'request' then
    full = redis.call('INCRBY', key, whole(cost)) > limit
    till = redis.call('PTTL', key)
    if till < 0 then
      redis.call('PEXPIRE', key, 60000)
      till = 60000
    end
  else
    full = tonumber(redis.call('GET', key) or '0') + cost > limit
    if kind == 'day' then till = (day + 1) * 86400000 - now else till = math.max(redis.call('PTTL', key), 1) end
  end
  if full and refused == 0 then refused, wait = (at + 1) / 4, till end
end
if refused > 0 then return { refused, wait } end
for at = 3, #ARGV, 4 do
  local kind, key = ARGV[at], keys[at]
  if kind == 'place' then
    redis.call('ZADD', key, whole(now + lease), who)
    redis.call('PEXPIRE', key, whole(lease + 1000))
  elseif kind ~= 'request' then
    redis.call('INCRBY', key, ARGV[at + 3])
    if kind == 'day' then redis.call('PEXPIREAT', key, whole((day + 2) * 86400000))
    elseif redis.call('PTTL', key) < 0 then redis.call('PEXPIRE', key, 60000) end
  end
end
return { 0, 0 }
`;

/** ARGV: name and holder of each place. */
export const COUNT_LEAVE = `
for at = 1, #ARGV, 2 do redis.call('ZREM', prefix .. 'limits:place:' .. ARGV[at], ARGV[at + 1]) end
return 0
`;

/** ARGV: how long from now (ms), then name and holder of each place. One that was lost meanwhile is taken again. */
export const COUNT_RENEW = `
local t = redis.call('TIME')
local till = string.format('%.0f', t[1] * 1000 + math.floor(t[2] / 1000) + tonumber(ARGV[1]))
for at = 2, #ARGV, 2 do
  local key = prefix .. 'limits:place:' .. ARGV[at]
  redis.call('ZADD', key, till, ARGV[at + 1])
  redis.call('PEXPIRE', key, tonumber(ARGV[1]) + 1000)
end
return 0
`;
