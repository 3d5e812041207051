// A BACnet/IP device, or a client, made of node-bacnet. Usage: node node_bacnet.js FOLDER device | client HOST:PORT
// FOLDER is where npm installed it. The device prints "port N" once it listens.
'use strict';
const path = require('path');
const [folder, role, target] = process.argv.slice(2);
const Bacnet = require(path.join(folder, 'node_modules', 'node-bacnet'));
const e = Bacnet.enum;
const tag = e.ApplicationTag;
const dgram = require('dgram');

const services = {value: [0x00, 0xd0, 0x00, 0x00, 0x00], bitsUsed: 40}; // bits 12, 14, 15: reads, RPM, writes
const slots = new Array(16).fill(null);
const flags = {type: tag.BIT_STRING, value: {value: [0], bitsUsed: 4}};
const store = {
  '8:31': {62: [{type: tag.UNSIGNED_INTEGER, value: 1476}], 97: [{type: tag.BIT_STRING, value: services}]},
  '0:1': {85: [{type: tag.REAL, value: 21.5}], 111: [flags]},
  '3:2': {85: [{type: tag.ENUMERATED, value: 1}], 111: [flags]},
  '19:3': {85: [{type: tag.UNSIGNED_INTEGER, value: 300}], 111: [flags]},
  '45:4': {85: [{type: tag.SIGNED_INTEGER, value: -129}]},
  '1:5': {85: [{type: tag.REAL, value: 10}], 111: [flags]},
};

function lookup(id, property) {
  const object = store[`${id.type}:${id.instance}`];
  if (!object) return [e.ErrorClass.OBJECT, e.ErrorCode.UNKNOWN_OBJECT];
  if (id.type === 1 && property.id === 87) {
    return {value: slots.map((slot) => (slot === null ? {type: tag.NULL, value: null} : {type: tag.REAL, value: slot}))};
  }
  return object[property.id] ? {value: object[property.id]} : [e.ErrorClass.PROPERTY, e.ErrorCode.UNKNOWN_PROPERTY];
}

function device(port) {
  const server = new Bacnet({port, interface: '127.0.0.1', reuseAddr: false});
  server.on('readProperty', ({header, invokeId, payload}) => {
    const found = lookup(payload.objectId, payload.property);
    if (Array.isArray(found)) server.errorResponse(header.sender, e.ConfirmedServiceChoice.READ_PROPERTY, invokeId, ...found);
    else server.readPropertyResponse(header.sender, invokeId, payload.objectId, payload.property, found.value);
  });
  server.on('readPropertyMultiple', ({header, invokeId, payload}) => {
    const values = payload.properties.map(({objectId, properties}) => ({
      objectId,
      values: properties.map((property) => {
        const found = lookup(objectId, property);
        const error = {value: {type: 'BacnetError', errorClass: found[0], errorCode: found[1]}};
        return {property, value: Array.isArray(found) ? [error] : found.value};
      }),
    }));
    server.readPropertyMultipleResponse(header.sender, invokeId, values);
  });
  server.on('writeProperty', ({header, invokeId, payload}) => {
    const {objectId, value} = payload;
    if (objectId.type !== 1) {
      server.errorResponse(header.sender, e.ConfirmedServiceChoice.WRITE_PROPERTY, invokeId,
        e.ErrorClass.PROPERTY, e.ErrorCode.WRITE_ACCESS_DENIED);
      return;
    }
    const written = value.value[0];
    slots[value.priority - 1] = written.type === tag.NULL ? null : written.value;
    const winner = slots.find((slot) => slot !== null);
    store['1:5'][85] = [{type: tag.REAL, value: winner === undefined ? 10 : winner}];
    server.simpleAckResponse(header.sender, e.ConfirmedServiceChoice.WRITE_PROPERTY, invokeId);
  });
  server.on('listening', () => console.log(`port ${port}`));
}

function client(port) {
  const us = new Bacnet({port, interface: '127.0.0.1', reuseAddr: false});
  const done = (error, result) => {
    console.log(JSON.stringify({error: error && String(error.message || error), result}));
    us.close();
    process.exit(0);
  };
  const objectId = {type: 1, instance: 1};
  us.on('listening', () => us.writeProperty(target, objectId, 85, [{type: tag.REAL, value: 60}], {priority: 8}, (error) => {
    if (error) return done(error);
    us.readPropertyMultiple(target, [{objectId, properties: [{id: 85}, {id: 111}, {id: 87}, {id: 9999}]}], (failed, answer) =>
      done(failed, answer && answer.values[0].values.map((one) => one.value)));
  }));
}

const probe = dgram.createSocket('udp4');
probe.bind(0, '127.0.0.1', () => {
  const {port} = probe.address();
  probe.close(() => (role === 'device' ? device(port) : client(port)));
});
