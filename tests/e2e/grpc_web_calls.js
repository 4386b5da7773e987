// SPDX-License-Identifier: Apache-2.0
// A client of gRPC-Web by Node's own modules, over both versions of HTTP and in both forms, for http2_backend_e2e.py.
//
// node grpc_web_calls.js ADDRESS NAME CA; prints one line of JSON.
'use strict';
const fs = require('fs');
const http2 = require('http2');
const https = require('https');

const [address, name, ca] = process.argv.slice(2);
const tls = {ca: fs.readFileSync(ca), servername: name};

const frame = text => {
  const head = Buffer.alloc(5);
  head.writeUInt32BE(Buffer.byteLength(text), 1);
  return Buffer.concat([head, Buffer.from(text)]);
};

// Messages and the fields of the trailers' frame.
function read(body) {
  const seen = {messages: [], trailers: {}};
  for (let at = 0; at < body.length;) {
    const length = body.readUInt32BE(at + 1);
    const data = body.subarray(at + 5, at + 5 + length).toString();
    if (body[at] & 0x80) {
      for (const line of data.split('\r\n').filter(Boolean)) seen.trailers[line.slice(0, line.indexOf(':'))] = line.slice(line.indexOf(':') + 1).trim();
    } else {
      seen.messages.push(data);
    }
    at += 5 + length;
  }
  return seen;
}

// Padding may be within the text: each group of four stands for itself.
const fromText = text => Buffer.concat((text.match(/.{1,4}/g) || []).map(group => Buffer.from(group, 'base64')));

async function ask(session, path, text, message) {
  const type = `application/grpc-web${text ? '-text' : ''}+proto`;
  const data = text ? frame(message).toString('base64') : frame(message);
  const fields = {'content-type': type, 'x-grpc-web': '1', 'grpc-timeout': '10S'};
  const got = [];
  const head = await new Promise((resolve, reject) => {
    const end = (stream, answer) => {
      stream.on('data', piece => got.push(piece));
      stream.on('end', () => resolve(answer));
      stream.on('error', reject);
    };
    if (session) {
      const stream = session.request({':method': 'POST', ':path': path, ':authority': name, ...fields});
      stream.on('error', reject);
      stream.on('response', answer => end(stream, answer));
      stream.end(data);
    } else {
      const request = https.request({...tls, host: address, path, method: 'POST', headers: {host: name, ...fields}}, answer => end(answer, answer.headers));
      request.on('error', reject);
      request.end(data);
    }
  });
  const body = Buffer.concat(got);
  const seen = read(text ? fromText(body.toString()) : body);
  const status = seen.trailers['grpc-status'] || head['grpc-status'];
  return [head['content-type'] === type || head['content-type'], status, seen.messages, seen.trailers['x-told'] || head['x-told']];
}

(async () => {
  const seen = {};
  const session = http2.connect(`https://${address}`, tls);
  for (const [over, use] of [['http1', null], ['http2', session]]) {
    for (const text of [false, true]) {
      const say = await ask(use, '/calls.Echo/Say', text, 'hello');
      const down = await ask(use, '/calls.Echo/Down', text, '300');
      const fail = await ask(use, '/calls.Echo/Fail', text, '');
      const gone = await ask(use, '/calls.Gone/Say', text, '');
      seen[`${over} ${text ? 'text' : 'binary'}`] = [
        say, [down[1], down[2].filter((message, i) => message === `m${i}`).length], [fail[1], fail[3]], gone[1],
      ];
    }
  }
  session.close();
  console.log(JSON.stringify(seen));
})();
