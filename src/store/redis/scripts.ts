/**
 * What Redis does in one step. Each script is atomic: nothing else runs meanwhile, and what it writes reaches the append-only file as one.
 *
 * Keys, after the prefix:
 * - `row:<member>` a hash: v value, n version, e expiry ("" for none), i packed names of the `find:` sets it is in. A member is
 *   `<bytes of kind>:<kind>:<id>`, so that no kind's rows begin like another's
 * - `rows`, `find:<bytes of name>:<name>:<value>` sorted sets of members with equal scores, which Redis keeps in bytewise order
 * - `expiry` members by the time they expire
 * - `audit:log`, `audit:columns` streams whose ids are the sequence numbers: the records, and what they are searched by
 * - `audit:times` the earliest and the latest time in each block of the log, so that a search by time passes over the others
 * - `audit:ids` sequence by record id; `audit:last` the last sequence
 * - `audit:heads` the last head of each chain; `audit:stubs` what was left of retired records, by sequence, and `audit:stub-order` a
 *   sorted set of those sequences, so that a page of the log reads no more of them than it has
 *
 * Rows have no expiry of Redis' own: it would leave their names in the sorted sets, and it knows only the server's clock.
 */
import { COUNT_LEAVE, COUNT_RENEW, COUNT_TAKE } from "./counting-scripts.ts";

/** KEYS[1] is the prefix in each. Not for a cluster, unless the prefix has a hash tag: the other keys follow from it and from rows. */
const PRELUDE = `
local prefix = KEYS[1]
local function live(expires, now)
  return expires == '' or tonumber(expires) > now
end
local function drop(member)
  local row = prefix .. 'row:' .. member
  local names = redis.call('HGET', row, 'i')
  if not names then return end
  for _, name in ipairs(cmsgpack.unpack(names)) do redis.call('ZREM', prefix .. 'find:' .. name, member) end
  redis.call('ZREM', prefix .. 'rows', member)
  redis.call('ZREM', prefix .. 'expiry', member)
  redis.call('DEL', row)
end
`;

/** ARGV: member, now, ifVersion or "", value, expiresAt or "", names of `find:` sets. Answers 1 when it has written. */
const PUT = `
local member, now, wanted, value, expires = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4], ARGV[5]
local row = prefix .. 'row:' .. member
local stored = redis.call('HMGET', row, 'n', 'e')
local version = 0
if stored[1] and live(stored[2], now) then version = tonumber(stored[1]) end
if wanted ~= '' and tonumber(wanted) ~= version then return 0 end
drop(member)
local names = {}
for at = 6, #ARGV do
  names[#names + 1] = ARGV[at]
  redis.call('ZADD', prefix .. 'find:' .. ARGV[at], 0, member)
end
redis.call('HSET', row, 'v', value, 'n', string.format('%.0f', version + 1), 'e', expires, 'i', cmsgpack.pack(names))
redis.call('ZADD', prefix .. 'rows', 0, member)
if expires ~= '' then redis.call('ZADD', prefix .. 'expiry', expires, member) end
return 1
`;

/** ARGV: member. Answers v, n, e of what was there, expired or not. */
const TAKE = `
local found = redis.call('HMGET', prefix .. 'row:' .. ARGV[1], 'v', 'n', 'e')
drop(ARGV[1])
return found
`;

/** ARGV: sorted set, beginning of members, limit, now, "(" and the id after which to begin or "". Answers id, v, n, e of each row. */
const PAGE = `
local set, kind, limit, now = prefix .. ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local from = '[' .. kind
if ARGV[5] ~= '' then from = '(' .. kind .. string.sub(ARGV[5], 2) end
local rows = {}
while true do
  local members = redis.call('ZRANGEBYLEX', set, from, '(' .. kind .. '\\255', 'LIMIT', 0, limit)
  for _, member in ipairs(members) do
    local found = redis.call('HMGET', prefix .. 'row:' .. member, 'v', 'n', 'e')
    if found[1] and live(found[3], now) then
      rows[#rows + 1] = string.sub(member, #kind + 1)
      for at = 1, 3 do rows[#rows + 1] = found[at] end
      if #rows >= limit * 4 then return rows end
    end
  end
  if #members < limit then return rows end
  from = '(' .. members[#members]
end
`;

/** ARGV: name of a `find:` set, beginning of members or "", now. Answers how many of the deleted were alive. */
const DELETE_WHERE = `
local from, to = '-', '+'
if ARGV[2] ~= '' then from, to = '[' .. ARGV[2], '(' .. ARGV[2] .. '\\255' end
local alive = 0
for _, member in ipairs(redis.call('ZRANGEBYLEX', prefix .. 'find:' .. ARGV[1], from, to)) do
  if live(redis.call('HGET', prefix .. 'row:' .. member, 'e') or '0', tonumber(ARGV[3])) then alive = alive + 1 end
  drop(member)
end
return alive
`;

/** ARGV: now, limit. Answers how many it deleted. */
const SWEEP = `
local members = redis.call('ZRANGEBYSCORE', prefix .. 'expiry', '-inf', ARGV[1], 'LIMIT', 0, ARGV[2])
for _, member in ipairs(members) do drop(member) end
return #members
`;

/** Records of the log that share an entry of `audit:times`. */
export const BLOCK = 1000;
/** How many arguments `APPEND` takes for each record. */
const WIDTH = 4;
/** ARGV: chain and head, both "" for none; of each record id, at, columns, json. Gives the last sequence; 0 when some were there. */
const APPEND = `
local last = tonumber(redis.call('GET', prefix .. 'audit:last') or '0')
local all = last + (#ARGV - 2) / ${WIDTH}
local times = {}
for at = 3, #ARGV, ${WIDTH} do
  local sequence = string.format('%.0f', last + 1)
  if redis.call('HSETNX', prefix .. 'audit:ids', ARGV[at], sequence) == 1 then
    redis.call('XADD', prefix .. 'audit:columns', sequence .. '-0', 'c', ARGV[at + 2])
    redis.call('XADD', prefix .. 'audit:log', sequence .. '-0', 'j', ARGV[at + 3])
    local block = string.format('%.0f', math.floor(last / ${BLOCK}))
    local text, time = ARGV[at + 1], tonumber(ARGV[at + 1])
    local span = times[block]
    if not span then
      local earliest, latest = string.match(redis.call('HGET', prefix .. 'audit:times', block) or '', '(%S+) (%S+)')
      span = { earliest or text, latest or text }
      times[block] = span
    end
    if time < tonumber(span[1]) then span[1] = text end
    if time > tonumber(span[2]) then span[2] = text end
    last = last + 1
  end
end
for block, span in pairs(times) do redis.call('HSET', prefix .. 'audit:times', block, span[1] .. ' ' .. span[2]) end
redis.call('SET', prefix .. 'audit:last', string.format('%.0f', last))
if ARGV[1] ~= '' then redis.call('HSET', prefix .. 'audit:heads', ARGV[1], ARGV[2]) end
return last == all and last or 0
`;

/** ARGV: how many heads, chain and head of each; of each record its sequence and its stub or "". */
const RETIRE = `
local heads = tonumber(ARGV[1])
for at = 2, heads * 2, 2 do
  if redis.call('HGET', prefix .. 'audit:heads', ARGV[at]) == ARGV[at + 1] then
    redis.call('HDEL', prefix .. 'audit:heads', ARGV[at])
  end
end
for at = heads * 2 + 2, #ARGV, 2 do
  redis.call('XDEL', prefix .. 'audit:columns', ARGV[at] .. '-0')
  redis.call('XDEL', prefix .. 'audit:log', ARGV[at] .. '-0')
  if ARGV[at + 1] ~= '' then
    redis.call('HSET', prefix .. 'audit:stubs', ARGV[at], ARGV[at + 1])
    redis.call('ZADD', prefix .. 'audit:stub-order', ARGV[at], ARGV[at])
  else
    redis.call('HDEL', prefix .. 'audit:stubs', ARGV[at])
    redis.call('ZREM', prefix .. 'audit:stub-order', ARGV[at])
  end
end
`;

/** For a store of a version that did not keep the order. */
const ORDER_STUBS = `
if redis.call('EXISTS', prefix .. 'audit:stub-order') == 1 then return end
for _, sequence in ipairs(redis.call('HKEYS', prefix .. 'audit:stubs')) do
  redis.call('ZADD', prefix .. 'audit:stub-order', sequence, sequence)
end
`;

export const SCRIPTS = {
  put: PRELUDE + PUT,
  take: PRELUDE + TAKE,
  page: PRELUDE + PAGE,
  deleteWhere: PRELUDE + DELETE_WHERE,
  sweep: PRELUDE + SWEEP,
  append: PRELUDE + APPEND,
  retire: PRELUDE + RETIRE,
  orderStubs: PRELUDE + ORDER_STUBS,
  countTake: PRELUDE + COUNT_TAKE,
  countLeave: PRELUDE + COUNT_LEAVE,
  countRenew: PRELUDE + COUNT_RENEW,
} as const satisfies Record<string, string>;
