"""Telemetry over MQTT: topics, payloads, the store-and-forward buffer, the publisher, and an embedded broker for
demos."""
