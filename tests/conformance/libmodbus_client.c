/* A Modbus TCP client made of libmodbus: an independent peer for poetd's server, its codec and its benchmark.
 *
 * usage: libmodbus_client PORT read TABLE START COUNT          prints the words or bits
 *        libmodbus_client PORT write TABLE START VALUE...      one value: functions 5 and 6; more: 15 and 16
 *        libmodbus_client PORT get TYPE ORDER START            prints a value of the holding table
 *        libmodbus_client PORT set TYPE ORDER START VALUE      writes one with function 16
 *        libmodbus_client PORT bench COUNT ROUNDS              reads COUNT holding registers, 125 at a time;
 *                                                              prints wall and CPU seconds of each round
 * An f32 is read with libmodbus's own four functions; the rest is put together here, word by word. (modbus_set_float_abcd
 * and its sisters in 3.1.6 store bytes in host order: on a little-endian machine their getters do not read them back.)
 */
#include <errno.h>
#include <inttypes.h>
#include <modbus.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define BLOCK 125

static modbus_t *context;

static void fail(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, modbus_strerror(errno));
    exit(1);
}

static int words_of(const char *type)
{
    return strstr(type, "64") ? 4 : strstr(type, "32") ? 2 : 1;
}

static void reorder(uint16_t *words, int count, const char *order)
{
    if (order[0] == 'B' || order[0] == 'D')
        for (int i = 0; i < count; i++)
            words[i] = __builtin_bswap16(words[i]);
    if (order[0] == 'C' || order[0] == 'D')
        for (int i = 0; i < count / 2; i++) {
            uint16_t word = words[i];
            words[i] = words[count - 1 - i];
            words[count - 1 - i] = word;
        }
}

static float get_float(const uint16_t *words, const char *order)
{
    switch (order[0]) {
    case 'A': return modbus_get_float_abcd(words);
    case 'B': return modbus_get_float_badc(words);
    case 'C': return modbus_get_float_cdab(words);
    default: return modbus_get_float_dcba(words);
    }
}

static void get(const char *type, const char *order, int start)
{
    uint16_t words[4] = {0};
    int count = words_of(type);
    if (modbus_read_registers(context, start, count, words) != count)
        fail("get");
    if (!strcmp(type, "f32")) {
        printf("%.17g\n", get_float(words, order));
        return;
    }
    reorder(words, count, order);
    uint64_t raw = 0;
    for (int i = 0; i < count; i++)
        raw = raw << 16 | words[i];
    double number;
    memcpy(&number, &raw, sizeof(number));
    if (!strcmp(type, "f64"))
        printf("%.17g\n", number);
    else if (type[0] == 'u')
        printf("%" PRIu64 "\n", raw);
    else if (count == 1)
        printf("%d\n", (int16_t)raw);
    else if (count == 2)
        printf("%" PRId32 "\n", (int32_t)raw);
    else
        printf("%" PRId64 "\n", (int64_t)raw);
}

static void set(const char *type, const char *order, int start, const char *text)
{
    uint16_t words[4];
    int count = words_of(type);
    uint64_t raw = type[0] == 'u' ? strtoull(text, NULL, 10) : (uint64_t)strtoll(text, NULL, 10);
    double number = strtod(text, NULL);
    float single = strtof(text, NULL);
    if (!strcmp(type, "f64"))
        memcpy(&raw, &number, sizeof(raw));
    if (!strcmp(type, "f32")) {
        uint32_t bits;
        memcpy(&bits, &single, sizeof(bits));
        raw = bits;
    }
    for (int i = count; i-- > 0; raw >>= 16)
        words[i] = (uint16_t)raw;
    reorder(words, count, order);
    if (modbus_write_registers(context, start, count, words) != count)
        fail("set");
}

static void read_table(const char *table, int start, int count)
{
    uint16_t words[BLOCK];
    uint8_t bits[MODBUS_MAX_READ_BITS];
    int is_bits = table[0] == 'c' || table[0] == 'd', done;
    switch (table[0]) {
    case 'c': done = modbus_read_bits(context, start, count, bits); break;
    case 'd': done = modbus_read_input_bits(context, start, count, bits); break;
    case 'i': done = modbus_read_input_registers(context, start, count, words); break;
    default: done = modbus_read_registers(context, start, count, words); break;
    }
    if (done != count)
        fail("read");
    for (int i = 0; i < count; i++)
        printf("%d%c", is_bits ? bits[i] : words[i], i + 1 < count ? ' ' : '\n');
}

static void write_table(const char *table, int start, int count, char **values)
{
    uint16_t words[BLOCK];
    uint8_t bits[BLOCK];
    int done;
    for (int i = 0; i < count; i++) {
        words[i] = (uint16_t)atoi(values[i]);
        bits[i] = (uint8_t)words[i];
    }
    if (table[0] == 'c')
        done = count == 1 ? modbus_write_bit(context, start, bits[0]) : modbus_write_bits(context, start, count, bits);
    else
        done = count == 1 ? modbus_write_register(context, start, words[0])
                          : modbus_write_registers(context, start, count, words);
    if (done != count)
        fail("write");
}

static double seconds(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static void bench(int count, int rounds)
{
    uint16_t words[BLOCK];
    for (int round = 0; round < rounds; round++) {
        double wall = seconds(CLOCK_MONOTONIC), cpu = seconds(CLOCK_PROCESS_CPUTIME_ID);
        for (int start = 0; start < count; start += BLOCK) {
            int wanted = count - start < BLOCK ? count - start : BLOCK;
            if (modbus_read_registers(context, start, wanted, words) != wanted)
                fail("bench");
        }
        printf("%.9f %.9f\n", seconds(CLOCK_MONOTONIC) - wall, seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu);
    }
}

int main(int argc, char **argv)
{
    const char *verb = argc > 3 ? argv[2] : "";
    context = argc > 1 ? modbus_new_tcp("127.0.0.1", atoi(argv[1])) : NULL;
    if (context == NULL || modbus_set_slave(context, 1) != 0 || modbus_connect(context) != 0)
        fail("connect");
    if (!strcmp(verb, "read") && argc == 6)
        read_table(argv[3], atoi(argv[4]), atoi(argv[5]));
    else if (!strcmp(verb, "write") && argc > 5 && argc - 5 <= BLOCK)
        write_table(argv[3], atoi(argv[4]), argc - 5, argv + 5);
    else if (!strcmp(verb, "get") && argc == 6)
        get(argv[3], argv[4], atoi(argv[5]));
    else if (!strcmp(verb, "set") && argc == 7)
        set(argv[3], argv[4], atoi(argv[5]), argv[6]);
    else if (!strcmp(verb, "bench") && argc == 5)
        bench(atoi(argv[3]), atoi(argv[4]));
    else
        return 2;
    modbus_close(context);
    modbus_free(context);
    return 0;
}
