-- What Envoy prints as statistics, line by line into what metricsPort answers: each metric with a help text, durations in
-- seconds instead of Envoy's microseconds, and a word where Envoy prints nothing. See config-agent/src/render/metrics.rs.
local US, SECONDS = "proxy_request_duration_us", "proxy_request_duration_seconds"
local HELP = {
  proxy_requests_total = "Requests, by what routed them and the status code of the answer (0: the client was gone).",
  [SECONDS] = "Time from the first byte of a request to the last byte of its answer, by what routed it.",
  proxy_routing_errors_total = "Requests that no target answered, or not to the end, by the reason.",
  sidetrack_requests_total = "Requests with a route key, by their rule; with a rule and role=\"baseline\" they fell back.",
  sidetrack_key_disagreements_total = "Requests whose key sources hold different route keys.",
  envoy_control_plane_connected_state = "1 while Envoy is connected to the agent.",
  envoy_http_downstream_cx_active = "Open connections of clients, by port.",
  envoy_http_downstream_rq_active = "Requests that are being worked on, by port.",
}

-- UpstreamConnectionTermination, as Envoy calls it, to upstream_connection_termination.
local function snake_case(head, words)
  return head .. words:gsub("%f[%w]%u", string.lower):gsub("%u", function(letter) return "_" .. letter:lower() end)
end

local function translated(line)
  local name, kind = line:match("^# TYPE (%S+) (%S+)$")
  if name then
    name = name == US and SECONDS or name
    return ("# HELP %s %s\n# TYPE %s %s"):format(name, HELP[name] or "See Envoy's documentation.", name, kind)
  end
  -- Values come with quotes escaped, so a bare quote ends one.
  line = line:gsub('^([%w_]+{path=")"', '%1baseline"')
  line = line:gsub('^(proxy_routing_errors_total{error_type=")([^"]+)', snake_case)
  if line:sub(1, #US) == US then
    line = SECONDS .. line:sub(#US + 1)
    line = line:gsub('(le=")(%d+)("} )', function(le, us, rest) return ("%s%.10g%s"):format(le, us / 1e6, rest) end)
    line = line:gsub("^([%w_]+_sum{.*} )(%S+)$", function(head, us) return ("%s%.10g"):format(head, us / 1e6) end)
  end
  return line
end

function envoy_on_response(handle)
  handle:headers():remove("content-length")
  -- The beginning of the line that the next chunk ends.
  local rest = ""
  for chunk in handle:bodyChunks() do
    local text = rest .. chunk:getBytes(0, chunk:length())
    local lines, incomplete = text:match("^(.*\n)([^\n]*)$")
    rest = incomplete or text
    chunk:setBytes(((lines or ""):gsub("[^\n]+", translated)))
  end
end
