// Reads the counter that `test-pattern` puts into its pictures, from the pixels of a canvas.
// The layout is that of flowstream/proto/barcode.py: two rows of 32 cells along the bottom, each cell 1/32 of the
// width and 1/18 of the height, white for a one, most significant bit first: 24 bits of frame counter, 32 bits of
// capture time (UTC in milliseconds modulo 2**32), 8 bits of CRC-8 (polynomial 0x07, initial value 0xFF).
//
//   readCounter(video)      -> {frame, captureMs} or null, from a <video>, <canvas> or ImageBitmap
//   readPixels(data, w, h)  -> the same from RGBA bytes
//   ageMs(counter)          -> milliseconds since the picture was captured, by this machine's clock

const COLUMNS = 32, ROWS = 2, ROW_FRACTION = 18, DARKEST_WHITE = 150, LIGHTEST_BLACK = 106;

function crc8(bytes) {
  let crc = 0xff;
  for (const byte of bytes) {
    crc ^= byte;
    for (let i = 0; i < 8; i++) crc = crc & 0x80 ? ((crc << 1) ^ 0x07) & 0xff : (crc << 1) & 0xff;
  }
  return crc;
}

function readPixels(data, width, height) {
  const bytes = new Uint8Array(8);
  for (let row = 0; row < ROWS; row++) {
    const top = height * (1 - (ROWS - row) / ROW_FRACTION), tall = height / ROW_FRACTION;
    const y0 = Math.floor(top + tall / 4), y1 = Math.max(y0 + 1, Math.floor(top + tall * 3 / 4));
    for (let column = 0; column < COLUMNS; column++) {
      const left = column * width / COLUMNS, wide = width / COLUMNS;
      const x0 = Math.floor(left + wide / 4), x1 = Math.max(x0 + 1, Math.floor(left + wide * 3 / 4));
      let sum = 0;
      for (let y = y0; y < y1; y++) {
        for (let x = x0; x < x1; x++) {
          const at = (y * width + x) * 4;
          sum += data[at] + data[at + 1] + data[at + 2];
        }
      }
      const mean = sum / (3 * (y1 - y0) * (x1 - x0));
      if (mean > LIGHTEST_BLACK && mean < DARKEST_WHITE) return null;
      if (mean >= DARKEST_WHITE) bytes[row * 4 + (column >> 3)] |= 0x80 >> (column & 7);
    }
  }
  if (crc8(bytes.subarray(0, 7)) !== bytes[7]) return null;
  const view = new DataView(bytes.buffer);
  return { frame: view.getUint32(0) >>> 8, captureMs: view.getUint32(3) };
}

function readCounter(source) {
  const width = source.videoWidth || source.width, height = source.videoHeight || source.height;
  if (!width || !height) return null;
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(source, 0, 0);
  return readPixels(context.getImageData(0, 0, width, height).data, width, height);
}

function ageMs(counter) {
  const age = (Date.now() - counter.captureMs) >>> 0; // modulo 2**32
  return age > 0x7fffffff ? age - 0x100000000 : age;
}

globalThis.flowstreamBarcode = { readPixels, readCounter, ageMs };
