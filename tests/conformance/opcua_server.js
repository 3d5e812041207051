// An OPC UA server made of node-opcua, which shares nothing with us: one node per data type, and a door to look inside.
// usage: node opcua_server.js FOLDER   (FOLDER holds server.pem, server.key and client.der)
// It prints "port N" and then obeys lines on stdin: "get NAME" prints a value, "set NAME VALUE" stores one.
"use strict";
const path = require("path");
const readline = require("readline");
const { OPCUAServer } = require("node-opcua-server");
const { OPCUACertificateManager } = require("node-opcua-certificate-manager");
const { MessageSecurityMode, SecurityPolicy } = require("node-opcua-secure-channel");
const { DataType, VariantArrayType } = require("node-opcua-variant");
const { StatusCodes } = require("node-opcua-status-code");

const TYPES = ["Boolean", "SByte", "Byte", "Int16", "UInt16", "Int32", "UInt32", "Int64", "UInt64", "Float", "Double"];

function fromText(type, text) {
    if (type === "Boolean") return text === "1";
    if (type === "Int64" || type === "UInt64") {
        const bits = BigInt.asUintN(64, BigInt(text));
        return [Number(bits >> 32n), Number(bits & 0xffffffffn)];
    }
    return Number(text);
}

function scalar(type, text) {
    return { dataType: DataType[type], arrayType: VariantArrayType.Scalar, value: fromText(type, text) };
}

function toText(type, value) {
    if (type === "Boolean") return value ? "1" : "0";
    if (type === "Int64" || type === "UInt64") {
        const bits = (BigInt(value[0]) << 32n) | BigInt(value[1]);
        return (type === "Int64" ? BigInt.asIntN(64, bits) : bits).toString();
    }
    return String(value);
}

async function main() {
    const folder = process.argv[2];
    const manager = (name) => new OPCUACertificateManager({
        rootFolder: path.join(folder, name), automaticallyAcceptUnknownCertificate: false,
    });
    const serverManager = manager("pki");
    await serverManager.initialize();
    await serverManager.trustCertificate(require("fs").readFileSync(path.join(folder, "client.der")));
    const userManager = manager("user_pki");
    await userManager.initialize();
    const server = new OPCUAServer({
        port: 0,
        host: "127.0.0.1",
        hostname: "127.0.0.1",
        serverInfo: { applicationUri: "urn:server" },
        certificateFile: path.join(folder, "server.pem"),
        privateKeyFile: path.join(folder, "server.key"),
        serverCertificateManager: serverManager,
        userCertificateManager: userManager,
        securityPolicies: [
            SecurityPolicy.None, SecurityPolicy.Basic256Sha256, SecurityPolicy.Aes128_Sha256_RsaOaep,
            SecurityPolicy.Aes256_Sha256_RsaPss,
        ],
        securityModes: [MessageSecurityMode.None, MessageSecurityMode.Sign, MessageSecurityMode.SignAndEncrypt],
        allowAnonymous: true,
        userManager: { isValidUser: (user, password) => user === "poetd" && password === "right password" },
        serverCapabilities: { operationLimits: { maxNodesPerRead: 25, maxMonitoredItemsPerCall: 10 } },
    });
    await server.initialize();
    const space = server.engine.addressSpace;
    const own = space.registerNamespace("urn:peer:values");
    const folderNode = own.addFolder(space.rootFolder.objects, { browseName: "values" });
    const nodes = {};
    for (const type of TYPES) {
        const node = own.addVariable({
            componentOf: folderNode, nodeId: "s=" + type, browseName: type, dataType: type,
            minimumSamplingInterval: 50, accessLevel: "CurrentRead | CurrentWrite",
        });
        node.setValueFromSource(scalar(type, "0"));
        nodes[type] = node;
    }
    const fixed = own.addVariable({
        componentOf: folderNode, nodeId: "s=Fixed", browseName: "Fixed", dataType: "Double", accessLevel: "CurrentRead",
    });
    fixed.setValueFromSource({ dataType: DataType.Double, value: 21.5 });
    const doubtful = own.addVariable({
        componentOf: folderNode, nodeId: "s=Doubtful", browseName: "Doubtful", dataType: "Double",
    });
    doubtful.setValueFromSource({ dataType: DataType.Double, value: 1.0 }, StatusCodes.UncertainSensorNotAccurate);
    const broken = own.addVariable({
        componentOf: folderNode, nodeId: "s=Broken", browseName: "Broken", dataType: "Double",
    });
    broken.setValueFromSource({ dataType: DataType.Double, value: 1.0 }, StatusCodes.BadDeviceFailure);
    const words = own.addVariable({
        componentOf: folderNode, nodeId: "s=Words", browseName: "Words", dataType: "String",
    });
    words.setValueFromSource({ dataType: DataType.String, value: "words" });
    for (let k = 0; k < 60; k++) {
        const node = own.addVariable({
            componentOf: folderNode, nodeId: "i=" + (5000 + k), browseName: "many" + k, dataType: "Double",
            minimumSamplingInterval: 50,
        });
        node.setValueFromSource({ dataType: DataType.Double, value: k });
        nodes["many" + k] = node;
    }
    await server.start();
    console.log("port " + server.endpoints[0].port);
    for await (const line of readline.createInterface({ input: process.stdin })) {
        const [verb, name, text] = line.split(" ");
        const type = TYPES.includes(name) ? name : "Double";
        if (verb === "set") nodes[name].setValueFromSource(scalar(type, text));
        console.log(toText(type, nodes[name].readValue().value.value));
    }
    await server.shutdown(0);
}

main().catch((error) => { console.error(error); process.exit(1); });
