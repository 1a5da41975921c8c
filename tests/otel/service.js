// A service that knows nothing of Sidetrack: service.js NAME PORT [NEXT].
//
// It answers with the requests of the whole way, its own first, each as the harness's echo server shows one. With NEXT,
// a URL, it asks the service there before it answers. It passes no header on: what arrives at NEXT is from the
// OpenTelemetry SDK, which is loaded before this file (tests/tests/otel.rs).
"use strict";

const http = require("http");

const [name, port, next] = process.argv.slice(2);

const server = http.createServer((request, response) => {
  const { method, url, httpVersion, rawHeaders } = request;
  const headers = [];
  for (let i = 0; i < rawHeaders.length; i += 2) headers.push(rawHeaders.slice(i, i + 2));
  const seen = { service: name, method, path: url, version: `HTTP/${httpVersion}`, headers };
  if (!next) return response.end(JSON.stringify([seen]));

  const asked = http.get(next, async (answer) => {
    const body = (await answer.toArray()).join("");
    response.statusCode = answer.statusCode;
    response.end(answer.statusCode === 200 ? JSON.stringify([seen, ...JSON.parse(body)]) : body);
  });
  asked.on("error", (error) => {
    response.statusCode = 502;
    response.end(`${name} can't ask ${next}: ${error.message}`);
  });
});
server.listen(Number(port), "127.0.0.1");
