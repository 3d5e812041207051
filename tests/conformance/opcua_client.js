// An OPC UA client made of node-opcua, which shares nothing with us.
// usage: node opcua_client.js URL read NODE...  |  write NODE TYPE VALUE  |  watch NODE SECONDS
// It prints one line per value: NODE TYPE VALUE STATUS.
"use strict";
const { OPCUAClient, AttributeIds, TimestampsToReturn } = require("node-opcua-client");
const { DataType, VariantArrayType } = require("node-opcua-variant");

function shown(value, type) {
    if (type !== "Int64" && type !== "UInt64") return String(Number(value));
    const bits = (BigInt(value[0]) << 32n) | BigInt(value[1]);
    return (type === "Int64" ? BigInt.asIntN(64, bits) : bits).toString();
}

function line(node, found) {
    const type = DataType[found.value.dataType];
    const value = found.value.value === null || found.value.value === undefined ? "-" : shown(found.value.value, type);
    console.log(node, type, value, found.statusCode.name);
}

function parsed(type, text) {
    if (type === "Boolean") return text === "1";
    if (type === "Int64" || type === "UInt64") {
        const bits = BigInt.asUintN(64, BigInt(text));
        return [Number(bits >> 32n), Number(bits & 0xffffffffn)];
    }
    return Number(text);
}

async function main() {
    const [url, verb, ...rest] = process.argv.slice(2);
    const client = OPCUAClient.create({ endpointMustExist: false, connectionStrategy: { maxRetry: 0 } });
    await client.connect(url);
    const session = await client.createSession();
    const uris = await session.readNamespaceArray();
    const resolve = (text) => text.replace(/^nsu=([^;]*);/, (_all, uri) => "ns=" + uris.indexOf(uri) + ";");
    if (verb === "read") {
        const asked = rest.map((node) => ({ nodeId: resolve(node), attributeId: AttributeIds.Value }));
        (await session.read(asked)).forEach((found, k) => line(rest[k], found));
    } else if (verb === "write") {
        const [node, type, text] = rest;
        const status = await session.write({
            nodeId: resolve(node), attributeId: AttributeIds.Value,
            value: { value: { dataType: DataType[type], arrayType: VariantArrayType.Scalar, value: parsed(type, text) } },
        });
        console.log(node, type, text, status.name);
    } else if (verb === "watch") {
        const subscription = await session.createSubscription2({
            requestedPublishingInterval: 100, requestedLifetimeCount: 100, requestedMaxKeepAliveCount: 10,
            publishingEnabled: true,
        });
        const item = await subscription.monitor(
            { nodeId: resolve(rest[0]), attributeId: AttributeIds.Value },
            { samplingInterval: 100, queueSize: 10, discardOldest: true }, TimestampsToReturn.Both,
        );
        item.on("changed", (found) => line(rest[0], found));
        await new Promise((done) => setTimeout(done, Number(rest[1]) * 1000));
        await subscription.terminate();
    }
    await session.close();
    await client.disconnect();
}

main().then(() => process.exit(0), (error) => { console.error(error.message); process.exit(1); });
