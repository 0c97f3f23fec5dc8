// A receiver by node's own HTTP/2: node node_receiver.mjs CERTIFICATE KEY. It answers with the method, the path, the
// length of the body and the header webhook-id, and after 50 requests on a connection asks for another one.
import { readFileSync } from "node:fs";
import { createSecureServer } from "node:http2";

const [, , cert, key] = process.argv;
const server = createSecureServer({
  cert: readFileSync(cert),
  key: readFileSync(key),
  settings: { maxConcurrentStreams: 10, headerTableSize: 100 },
});
const served = new Map();

server.on("stream", (stream, headers) => {
  const count = (served.get(stream.session) ?? 0) + 1;
  served.set(stream.session, count);
  if (count === 50) stream.session.close(); // GOAWAY; open streams go on
  let size = 0;
  stream.on("data", (chunk) => (size += chunk.length));
  stream.on("end", () => {
    stream.additionalHeaders({ ":status": 103, link: "</a>" });
    stream.respond({ ":status": 200, "x-sessions": served.size });
    stream.end(`${headers[":method"]} ${headers[":path"]} ${size} ${headers["webhook-id"]}`);
  });
  stream.on("error", () => {});
});

server.listen(0, "127.0.0.1", () => console.log(server.address().port));
