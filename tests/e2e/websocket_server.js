// SPDX-License-Identifier: Apache-2.0
// websocket_server.js ADDRESS CONNECT_PORT PLAIN_PORT [TLS_PORT CERTIFICATE KEY]: a WebSocket server of HTTP/2 (RFC
// 8441) that echoes each message, by Node's own module. The first port allows extended CONNECT, the second does not.
// The third one has both versions of HTTP by ALPN: its HTTP/2 allows none, its HTTP/1.1 opens WebSockets by Upgrade.
const crypto = require('crypto');
const fs = require('fs');
const http2 = require('http2');

const [address, connectPort, plainPort, tlsPort, certificate, key] = process.argv.slice(2);

// Calls `take` with each whole message of a client, as the frame that the server sends back.
function reader(take) {
  let waiting = Buffer.alloc(0);
  return piece => {
    waiting = Buffer.concat([waiting, piece]);
    for (;;) {
      if (waiting.length < 2) return;
      const short = waiting[1] & 127;
      const extra = short === 126 ? 2 : short === 127 ? 8 : 0;
      const begin = 2 + extra + 4;
      if (waiting.length < begin) return;
      const length = extra === 0 ? short : extra === 2 ? waiting.readUInt16BE(2) : Number(waiting.readBigUInt64BE(2));
      if (waiting.length < begin + length) return;
      const mask = waiting.subarray(begin - 4, begin), data = Buffer.from(waiting.subarray(begin, begin + length));
      for (let i = 0; i < length; ++i) data[i] ^= mask[i % 4];
      const head = Buffer.from(waiting.subarray(0, 2 + extra));
      head[1] = short;
      take(Buffer.concat([head, data]));
      waiting = waiting.subarray(begin + length);
    }
  };
}

// Ends with the client, or after its frame "close".
function echo(stream) {
  stream.on('data', reader(message => {
    stream.write(message);
    if ((message[0] & 15) === 8) stream.end();
  }));
  stream.on('end', () => stream.end());
  stream.on('error', () => {});
}

function serve(server, port) {
  server.on('stream', (stream, fields) => {
    stream.on('error', () => {});
    if (fields[':method'] !== 'CONNECT') {
      stream.respond({':status': 200, 'content-type': 'text/plain'});
      return stream.end(`${fields[':method']} over HTTP/2\n`);
    }
    if (fields[':protocol'] !== 'websocket' || fields['sec-websocket-key'] || fields['sec-websocket-version'] !== '13') {
      stream.respond({':status': 400});
      return stream.end();
    }
    stream.respond({':status': 200, 'sec-websocket-protocol': 'echo'});
    echo(stream);
  });
  server.on('sessionError', () => {});
  server.listen(Number(port), address);
}

serve(http2.createServer({settings: {enableConnectProtocol: true}}), connectPort);
serve(http2.createServer(), plainPort);
if (tlsPort) {
  const server = http2.createSecureServer({allowHTTP1: true, cert: fs.readFileSync(certificate), key: fs.readFileSync(key)});
  server.on('upgrade', (request, socket) => {
    const accept = crypto.createHash('sha1').update(request.headers['sec-websocket-key'] + '258EAFA5-E914-47DA-95CA-C5AB0DC85B11').digest('base64');
    socket.write(`HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: ${accept}\r\n\r\n`);
    echo(socket);
  });
  serve(server, tlsPort);
}
