/* A Modbus server made of libmodbus: an independent peer for poetd's driver. Single thread, several clients.
 *
 * usage: libmodbus_server REGISTERS                  Modbus TCP, on a free port of 127.0.0.1; prints "port N" when ready
 *        libmodbus_server REGISTERS DEVICE UNIT      Modbus RTU, 115200 baud 8N1, one slave; prints "ready"
 * Serves REGISTERS of each table, addresses from 0.
 * At start register i of the input and holding tables holds i, and every third coil and discrete input is on.
 * The input tables mirror the writable ones after every write, so that a client can load them.
 */
#include <errno.h>
#include <modbus.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/select.h>
#include <unistd.h>

static void mirror(modbus_mapping_t *map, int count)
{
    memcpy(map->tab_input_registers, map->tab_registers, (size_t)count * sizeof(uint16_t));
    memcpy(map->tab_input_bits, map->tab_bits, (size_t)count);
}

static int serve_line(modbus_mapping_t *map, int count, const char *device, int unit)
{
    modbus_t *context = modbus_new_rtu(device, 115200, 'N', 8, 1);
    if (context == NULL || modbus_set_slave(context, unit) != 0 || modbus_connect(context) != 0) {
        fprintf(stderr, "cannot open %s: %s\n", device, modbus_strerror(errno));
        return 1;
    }
    /* A slave of libmodbus takes what follows a request to another slave for that one's answer; for this long. */
    modbus_set_response_timeout(context, 0, 50000);
    printf("ready\n");
    fflush(stdout);
    uint8_t query[MODBUS_RTU_MAX_ADU_LENGTH];
    for (;;) {
        /* 0: for another slave; less: noise, or the port is gone */
        int received = modbus_receive(context, query);
        if (received > 0 && modbus_reply(context, query, received, map) >= 0)
            mirror(map, count);
        else if (received < 0 && errno == EIO)
            return 0;
    }
}

int main(int argc, char **argv)
{
    int count = argc == 2 || argc == 4 ? atoi(argv[1]) : 0;
    if (count < 1 || count > 65536) {
        fprintf(stderr, "usage: libmodbus_server REGISTERS (1..65536) [DEVICE UNIT]\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    modbus_mapping_t *map = modbus_mapping_new(count, count, count, count);
    for (int i = 0; map != NULL && i < count; i++) {
        map->tab_registers[i] = (uint16_t)i;
        map->tab_bits[i] = i % 3 == 0;
    }
    if (map != NULL)
        mirror(map, count);
    if (map != NULL && argc == 4)
        return serve_line(map, count, argv[2], atoi(argv[3]));
    modbus_t *context = modbus_new_tcp("127.0.0.1", 0);
    int listener = context != NULL && map != NULL ? modbus_tcp_listen(context, 8) : -1;
    struct sockaddr_in address;
    socklen_t length = sizeof(address);
    if (listener < 0 || getsockname(listener, (struct sockaddr *)&address, &length) != 0) {
        fprintf(stderr, "cannot listen: %s\n", modbus_strerror(errno));
        return 1;
    }
    printf("port %d\n", ntohs(address.sin_port));
    fflush(stdout);

    fd_set watched;
    int highest = listener;
    FD_ZERO(&watched);
    FD_SET(listener, &watched);
    uint8_t query[MODBUS_TCP_MAX_ADU_LENGTH];
    for (;;) {
        fd_set ready = watched;
        if (select(highest + 1, &ready, NULL, NULL, NULL) < 0)
            return 1;
        for (int fd = 0; fd <= highest; fd++) {
            if (!FD_ISSET(fd, &ready))
                continue;
            if (fd == listener) {
                int client = accept(listener, NULL, NULL);
                if (client >= 0 && client < FD_SETSIZE) {
                    FD_SET(client, &watched);
                    highest = client > highest ? client : highest;
                }
                continue;
            }
            modbus_set_socket(context, fd);
            int received = modbus_receive(context, query);
            if (received > 0 && modbus_reply(context, query, received, map) >= 0) {
                if (query[modbus_get_header_length(context)] >= 5)
                    mirror(map, count);
            } else if (received < 0) {
                close(fd);
                FD_CLR(fd, &watched);
            }
        }
    }
}
