-- What Envoy prints as statistics, into what metricsPort answers: each metric with a help text, durations in
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

-- Envoy counts microseconds. Few values end a bucket, so each is translated once.
local LE = setmetatable({}, {__index = function(known, us)
  known[us] = (',le="%.10g"'):format(us / 1e6)
  return known[us]
end})

local function with_help(name, kind)
  name = name == US and SECONDS or name
  return ("\n# HELP %s %s\n# TYPE %s %s"):format(name, HELP[name] or "See Envoy's documentation.", name, kind)
end

local function in_seconds(series, us)
  return ("%s%.10g"):format(series, us / 1e6)
end

-- UpstreamConnectionTermination, as Envoy calls it, to upstream_connection_termination.
local function in_snake_case(label, words)
  return label .. words:gsub("%f[%w]%u", string.lower):gsub("%u", function(letter) return "_" .. letter:lower() end)
end

-- Whole lines, with an end of line before the first. In a label's value quotes are escaped, so a bare one ends it.
local function translated(lines)
  lines = lines:gsub("\n# TYPE (%S+) (%S+)", with_help)
  lines = lines:gsub("\n" .. US, "\n" .. SECONDS)
  lines = lines:gsub(',le="(%d+)"', LE)
  lines = lines:gsub("(\n" .. SECONDS .. "_sum{[^\n]*} )(%S+)", in_seconds)
  lines = lines:gsub('{path=""', '{path="baseline"')
  return (lines:gsub('({error_type=")([^"]+)', in_snake_case))
end

function envoy_on_response(handle)
  handle:headers():remove("content-length")
  -- The beginning of the line that the next chunk ends.
  local rest = ""
  for chunk in handle:bodyChunks() do
    local text = rest .. chunk:getBytes(0, chunk:length())
    local lines, incomplete = text:match("^(.*\n)([^\n]*)$")
    rest = incomplete or text
    chunk:setBytes(translated("\n" .. (lines or "")):sub(2))
  end
end
