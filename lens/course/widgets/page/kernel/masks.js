// Where are a page's subnetworks, and which bits are in one?  mask_script puts them into lensMasks, by their digest.
//
// One is { sites: [[layer, site, d_in, d_out, neurons]], bits }: the bits of all sites one after the other, each site
// from a byte of its own, through zlib and base64.  Bit i of a site, counted from the lowest of every byte, is weight i
// of [d_in, d_out], row after row; of neurons it is the whole input row i.

/** A subnetwork's masks as removeWeights takes them: [{ layer, site, rows, columns, bits, neurons }]; opened once. */
async function openMask(kernel, digest) {
  if (!kernel.opened.has(digest)) {
    const held = kernel.masks[digest];
    if (!held) throw new Error(`The subnetwork ${digest} is not in this page: ask for it in a running notebook.`);
    const all = await inflated(fromBase64(held.bits));
    let start = 0;
    const masks = held.sites.map(([layer, site, rows, columns, neurons]) => {
      const size = Math.ceil((neurons ? rows : rows * columns) / 8);
      start += size;
      return { layer, site, rows, columns, neurons, bits: all.subarray(start - size, start) };
    });
    if (start !== all.length) throw new Error(`The subnetwork ${digest} has ${all.length} bytes, not ${start}.`);
    kernel.opened.set(digest, masks);
  }
  return kernel.opened.get(digest);
}

/** What zlib has packed. */
async function inflated(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

const each = (list) => [...new Set(list)];
const layersOf = (masks) => each(masks.map(({ layer }) => layer));
const sitesOf = (masks) => each(masks.map(({ site }) => site));
