// SPDX-License-Identifier: Apache-2.0
// websocket_client.js ADDRESS NAME CERTIFICATE [PATH]: WebSockets over TLS by Node's own modules, over HTTP/1 and HTTP/2. Each
// sends messages of several sizes to a server that echoes them. Prints one line of JSON.
const crypto = require('crypto');
const fs = require('fs');
const http2 = require('http2');
const https = require('https');

const [address, name, certificate, path = '/chat/room'] = process.argv.slice(2);
const tls = {ca: fs.readFileSync(certificate), servername: name};
const sizes = [0, 1, 125, 126, 1000, 4096, 65535, 65536, 100000, 300000, 5, 1000000];

function head(first, length, mask) {
  if (length < 126) return Buffer.concat([Buffer.from([first, (mask ? 128 : 0) | length]), mask || Buffer.alloc(0)]);
  const long = length > 65535;
  const out = Buffer.alloc(long ? 10 : 4);
  out[0] = first;
  out[1] = (mask ? 128 : 0) | (long ? 127 : 126);
  if (long) out.writeBigUInt64BE(BigInt(length), 2);
  else out.writeUInt16BE(length, 2);
  return Buffer.concat([out, mask || Buffer.alloc(0)]);
}

// Sends all messages, then half-closes. Resolves to how many came back as they were, and nothing else with them.
function talk(stream, lengths) {
  const messages = lengths.map(length => crypto.randomBytes(length));
  const expected = Buffer.concat(messages.flatMap(data => [head(0x82, data.length), data]));
  return new Promise((resolve, reject) => {
    const got = [];
    stream.on('data', piece => got.push(piece));
    stream.on('error', reject);
    stream.on('end', () => resolve(Buffer.concat(got).equals(expected) ? messages.length : -1));
    for (const data of messages) {
      const mask = crypto.randomBytes(4), masked = Buffer.from(data);
      for (let i = 0; i < masked.length; ++i) masked[i] ^= mask[i % 4];
      stream.write(Buffer.concat([head(0x82, data.length, mask), masked]));
    }
    stream.end();
  });
}

function overHttp1() {
  return new Promise((resolve, reject) => {
    const request = https.request({
      ...tls, host: address, path, headers: {
        Host: name, Connection: 'Upgrade', Upgrade: 'websocket', 'Sec-WebSocket-Version': 13,
        'Sec-WebSocket-Key': crypto.randomBytes(16).toString('base64'),
      },
    });
    request.on('upgrade', (answer, socket) => talk(socket, sizes).then(resolve, reject));
    request.on('error', reject);
    request.end();
  });
}

async function overHttp2(session, lengths) {
  const stream = session.request(
      {':method': 'CONNECT', ':protocol': 'websocket', ':scheme': 'https', ':authority': name, ':path': path,
       'sec-websocket-version': 13});
  const status = await new Promise((resolve, reject) => {
    stream.on('response', fields => resolve(fields[':status']));
    stream.on('error', reject);
  });
  if (status !== 200) throw new Error(`status ${status}`);
  return talk(stream, lengths);
}

(async () => {
  const seen = {http1: `${await overHttp1()} messages`};
  const session = http2.connect(`https://${address}`, tls);
  const settings = await new Promise(resolve => session.on('remoteSettings', resolve));
  if (!settings.enableConnectProtocol) throw new Error('the proxy does not offer extended CONNECT');
  seen.http2 = `${await overHttp2(session, sizes)} messages`;
  const many = await Promise.all(Array.from({length: 32}, () => overHttp2(session, [10, 1000, 100])));
  seen.streams = `${many.filter(count => count === 3).length} of ${many.length}`;
  session.close();
  console.log(JSON.stringify(seen));
})();
