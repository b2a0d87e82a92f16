#include "crc.h"

#include <string.h>

/* tables[n][b]: what byte b does to the CRC when n more bytes follow it. */
static uint32_t tables[8][256];

void vt_crc32_init(void)
{
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t crc = byte;

        for (unsigned bit = 0; bit < 8; bit++)
            crc = (crc >> 1) ^ (crc & 1 ? 0xedb88320u : 0);
        tables[0][byte] = crc;
    }
    for (unsigned more = 1; more < 8; more++)
        for (unsigned byte = 0; byte < 256; byte++) {
            uint32_t crc = tables[more - 1][byte];

            tables[more][byte] = (crc >> 8) ^ tables[0][crc & 255];
        }
}

/* Eight bytes a step: a block is closed inside of an access, so this is time that shows. */
uint32_t vt_crc32(const uint8_t *data, size_t bytes)
{
    uint32_t crc = 0xffffffffu;

    for (; bytes >= 8; bytes -= 8, data += 8) {
        uint32_t low, high;

        memcpy(&low, data, 4);
        memcpy(&high, data + 4, 4);
        low ^= crc;
        crc = tables[7][low & 255] ^ tables[6][low >> 8 & 255] ^ tables[5][low >> 16 & 255] ^
              tables[4][low >> 24] ^ tables[3][high & 255] ^ tables[2][high >> 8 & 255] ^
              tables[1][high >> 16 & 255] ^ tables[0][high >> 24];
    }
    for (; bytes; bytes--, data++)
        crc = (crc >> 8) ^ tables[0][(crc ^ *data) & 255];
    return ~crc;
}
