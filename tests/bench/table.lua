-- What a Lua filter needs to route as Sidetrack does: the same rules, the same matching. Before this, scripts/bench puts
-- RULES: a line for each rule, its key, path prefix and headers (`name=value;` each), with tabs between them.
local by_key = {}
for key, prefix, headers in RULES:gmatch("([^\t\n]*)\t([^\t\n]*)\t([^\n]*)\n") do
  local rule = {prefix = prefix, headers = {}}
  for name, value in headers:gmatch("([^=]+)=([^;]*);") do
    table.insert(rule.headers, {name, value})
  end
  by_key[key] = by_key[key] or {}
  table.insert(by_key[key], rule)
end

-- Whole segments, without the query.
local function is_below(path, prefix)
  if path:sub(1, #prefix) ~= prefix then return false end
  local next = path:sub(#prefix + 1, #prefix + 1)
  return next == "" or next == "/" or next == "?"
end

local function matches(rule, headers)
  if rule.prefix ~= "" and not is_below(headers:get(":path"), rule.prefix) then return false end
  for _, matcher in ipairs(rule.headers) do
    if headers:get(matcher[1]) ~= matcher[2] then return false end
  end
  return true
end

function envoy_on_request(handle)
  local headers = handle:headers()
  local key = headers:get("x-route-key")
  for _, rule in ipairs(by_key[key] or {}) do
    if matches(rule, headers) then
      headers:replace("x-route-cluster", "plain-sandbox")
      return
    end
  end
end
