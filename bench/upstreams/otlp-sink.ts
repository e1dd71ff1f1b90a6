/** Takes OTLP/HTTP exports and counts them, so that a run can show that its traces really left. `GET /` gives the counts. */
import http from "node:http";

let exports = 0;
let bytes = 0;

const server = http.createServer((request, response) => {
  if (request.method === "GET") {
    response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify({ exports, bytes }));
    return;
  }
  const traces = request.url === "/v1/traces";
  const json = request.headers["content-type"]?.startsWith("application/json") === true;
  if (traces) exports += 1;
  request.on("data", (chunk: Buffer) => {
    if (traces) bytes += chunk.length;
  });
  request.on("end", () => {
    // An empty protobuf message is an empty body; both say that everything was taken.
    response.writeHead(200, { "content-type": json ? "application/json" : "application/x-protobuf" });
    response.end(json ? "{}" : "");
  });
});
server.keepAliveTimeout = 120_000;
server.listen(Number(process.env["PORT"]), "127.0.0.1");
process.on("SIGTERM", () => process.exit(0));
