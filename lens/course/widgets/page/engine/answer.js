// What does the model say next, and how does it go on?  Probabilities, the likeliest word, or one that is drawn.
//
// Drawn: of the k tokens with the largest logits z,  next = argmax z_t − log(−log u_t),  a sample of their softmax.
// The uniform numbers u have an address (seed, case, place, position, token), so that Python draws the same words.

/**
 * Behind `prompt` (ids): { ids, probabilities } of the k likeliest tokens; `hoped` the probability of `target` (ids; of
 * several tokens the geometric mean) and `said`, whether each is the likeliest.  `below` as in forward.
 */
function nextWords(model, prompt, target, k = 5, below) {
  const { ids, due } = teacherForced(model, prompt, target);
  const run = forward(model, ids, { below });
  const rows = due.map(({ position, token }) => {
    const p = logitsOf(model, rowOf(run.top, run.n, position), 1);
    softmax(p);
    const likeliest = best(p, 0, p.length, k, 1);
    return { likeliest, probabilities: likeliest.map((id) => p[id]), own: p[token], said: likeliest[0] === token };
  });
  return {
    ids: rows[0].likeliest,
    probabilities: rows[0].probabilities,
    hoped: Math.exp(rows.reduce((sum, { own }) => sum + Math.log(own) / rows.length, 0)),
    said: rows.every(({ said }) => said),
    run,
  };
}

/**
 * `prompt` (ids) and what comes behind it, `length` ids in all.  `top`: draw among so many; 1 takes the likeliest.
 * Each token is computed once; keys and values of those before it are kept.
 */
function continueText(model, prompt, { length = 100, top = 1, seed = 0, place = 0, of = 0 } = {}) {
  const most = Math.min(length, model.context);
  const ids = prompt.slice(0, most);
  const past = emptyPast(model);
  let run = ids.length < most ? forward(model, ids, { past }) : null;
  while (ids.length < most) {
    const z = logitsOf(model, rowOf(run.top, run.n, run.n - 1), 1);
    const likeliest = best(z, 0, z.length, top, 1);
    const noisy = likeliest.map((id) => (top > 1 ? z[id] + gumbel(id, place, ids.length, of, seed) : z[id]));
    ids.push(likeliest[noisy.indexOf(Math.max(...noisy))]);
    if (ids.length < most) run = forward(model, ids.slice(-1), { past });
  }
  return ids;
}

/** −log(−log u), u an odd multiple of 2⁻²⁴ in (0, 1) from the top 23 bits of a random word. */
function gumbel(token, place, position, of, seed) {
  const word = philox([token >>> 2, place, position, of], [seed >>> 0, Math.floor(seed / 2 ** 32)])[token & 3];
  return -Math.log(-Math.log(((word >>> 9) * 2 + 1) / 2 ** 24));
}

/**
 * Philox 4x32-10 (Salmon et al., 2011): four random 32-bit words of a counter [4] and a key [2], in ten rounds of
 *     (c0, c1, c2, c3) ← (hi(M1·c2) ⊕ c1 ⊕ k0,  lo(M1·c2),  hi(M0·c0) ⊕ c3 ⊕ k1,  lo(M0·c0)),    k ← k + W
 */
function philox([c0, c1, c2, c3], [k0, k1]) {
  for (let round = 0; round < 10; round++) {
    const [a, b] = [BigInt(c0 >>> 0) * 0xd2511f53n, BigInt(c2 >>> 0) * 0xcd9e8d57n];
    const [high0, low0, high1, low1] = [a >> 32n, a & 0xffffffffn, b >> 32n, b & 0xffffffffn].map(Number);
    [c0, c1, c2, c3] = [(high1 ^ c1 ^ k0) >>> 0, low1, (high0 ^ c3 ^ k1) >>> 0, low0];
    [k0, k1] = [(k0 + 0x9e3779b9) >>> 0, (k1 + 0xbb67ae85) >>> 0];
  }
  return [c0, c1, c2, c3];
}
