// What does the loss say to every layer?  The backward pass by hand, from ∂ℓ/∂(what a step gave) to ∂ℓ/∂(what it took).
//
//     ℓ = −log p(target | prompt),  the mean over the target's tokens, each predicted from its own position
//
// The gradient of a weight is never made: that of z = x W + b is xᵀδ, with x [n, d_in] from the forward pass and
// δ = ∂ℓ/∂z [n, d_out] from this one.  Every step is the chain rule: forward  y = f(x),  backward  δ_x = δ_y · ∂y/∂x.

/** A target behind its prompt: the ids that run, and where each token of the target is due, with its share of the loss. */
function teacherForced(model, prompt, target) {
  const ids = fitting(model, [...prompt, ...target.slice(0, -1)]);
  const due = target.map((token, j) => ({ position: prompt.length - 1 + j, token, share: 1 / target.length }));
  return { ids, due };
}

/**
 * z = x W + b.    δ_x = δ Wᵀ
 */
function linearBack(delta, n, { W }) {
  return productTransposed(delta, n, W);
}

/**
 * y = g ∘ x̂ + b,  x̂ = (x − μ)/σ.    With u = δ ∘ g:   δ_x = (u − mean(u) − x̂ · mean(u ∘ x̂)) / σ
 * The first mean is what moves μ, the second what moves σ; neither can change the output.
 */
function layerNormBack(delta, x, n, { gain, bias }, epsilon) {
  const d = x.length / n;
  const { hat, sigma } = layerNorm(x, n, { gain, bias }, epsilon);
  const out = new Float32Array(n * d);
  for (let i = 0; i < n; i++) {
    let mean = 0, along = 0;
    for (let j = i * d; j < (i + 1) * d; j++) {
      const u = delta[j] * gain[j - i * d];
      mean += u / d;
      along += (u * hat[j]) / d;
    }
    for (let j = i * d; j < (i + 1) * d; j++) out[j] = (delta[j] * gain[j - i * d] - mean - hat[j] * along) / sigma[i];
  }
  return out;
}

/**
 * a = gelu(z).    δ_z = δ ∘ gelu'(z),  gelu'(z) = ½ (1 + t) + ½ z (1 − t²) c (1 + 3 · 0.044715 z²),
 * t = tanh(c (z + 0.044715 z³)),  c = √(2/π)
 */
function geluBack(delta, z) {
  return delta.map((value, i) => {
    const v = z[i];
    const t = Math.tanh(GELU * (v + 0.044715 * v ** 3));
    return value * (0.5 * (1 + t) + 0.5 * v * (1 - t * t) * GELU * (1 + 3 * 0.044715 * v * v));
  });
}

/**
 * mixed_i = Σ_j A_ij v_j.        δv_j = Σ_i A_ij δ_i,    ∂ℓ/∂A_ij = δ_i · v_j
 * A_i = softmax(s_i).            ∂ℓ/∂s_ij = A_ij (∂ℓ/∂A_ij − Σ_k A_ik ∂ℓ/∂A_ik)
 * s_ij = q_i · k_j / √d_head.    δq_i = Σ_j ∂ℓ/∂s_ij k_j / √d_head,    δk_j = Σ_i ∂ℓ/∂s_ij q_i / √d_head
 * δ and q, k, v [n, d]; returns δq, δk and δv side by side, [n, 3 d], as c_attn gives q, k and v.
 */
function attendBack(delta, { q, k, v, A }, n, heads) {
  const d = q.length / n, size = d / heads;
  const out = new Float32Array(n * 3 * d), slope = new Float64Array(n);
  for (let head = 0; head < heads; head++) {
    for (let i = 0; i < n; i++) {
      const row = (head * n + i) * n, mine = i * d + head * size;
      let mean = 0;
      for (let j = 0; j <= i; j++) {
        slope[j] = inner(delta, mine, v, j * d + head * size, size);
        mean += A[row + j] * slope[j];
      }
      for (let j = 0; j <= i; j++) {
        const s = (A[row + j] * (slope[j] - mean)) / Math.sqrt(size), other = j * d + head * size;
        addRow(out, i * 3 * d + head * size, s, k, other, size);
        addRow(out, j * 3 * d + d + head * size, s, q, mine, size);
        addRow(out, j * 3 * d + 2 * d + head * size, A[row + j], delta, mine, size);
      }
    }
  }
  return out;
}

/**
 * ℓ = −Σ share · log p_t,  p = softmax(z),  z = ln_f(h) Eᵀ.    ∂ℓ/∂z_k = share · (p_k − 1[k = t])
 * So the gradient that enters the network at the top is Σ_k (p_k − 1[k = t]) E[k]: the target's embedding with a
 * coefficient below 0, that of every other token with one above 0.  Returns δ [n, d] at the top of the stack, and ℓ.
 */
function lossBack(model, run, due) {
  const d = model.width;
  const delta = new Float32Array(run.n * d);
  let loss = 0;
  for (const { position, token, share } of due) {
    const h = rowOf(run.top, run.n, position);
    const slope = logitsOf(model, h, 1); // [V], logits that become p, and then ∂ℓ/∂z
    const own = slope[token];
    loss += share * (softmax(slope) - own);
    slope[token] -= 1;
    const up = product(slope.map((p) => share * p), 1, model.E); // [d]: Σ_k ∂ℓ/∂z_k E[k]
    delta.set(layerNormBack(up, h, 1, model.final, model.epsilon), position * d);
  }
  return { delta, loss };
}

/**
 * Down the whole stack, to layer `lowest`: { loss, deltas }, deltas[layer] = { ff2, ff1, attn_out, qkv }, the δ of each
 * linear map.  A sum goes backward as a copy: what a layer adds to the stream h and the stream itself see the same δ.
 */
function backward(model, run, due, lowest = 0) {
  const { n } = run;
  const deltas = [];
  let { delta, loss } = lossBack(model, run, due);
  for (let layer = model.layers.length - 1; layer >= lowest; layer--) {
    const { ln1, qkv, out, ln2, ff1, ff2 } = model.layers[layer];
    const kept = run.layers[layer];
    const found = { ff2: delta };
    found.ff1 = geluBack(linearBack(found.ff2, n, ff2), kept.z); // [n, d_m]
    delta = plus(delta, layerNormBack(linearBack(found.ff1, n, ff1), kept.m, n, ln2, model.epsilon));
    found.attn_out = delta;
    found.qkv = attendBack(linearBack(found.attn_out, n, out), kept, n, model.heads); // [n, 3 d]
    if (layer > lowest) {
      delta = plus(delta, layerNormBack(linearBack(found.qkv, n, qkv), kept.h, n, ln1, model.epsilon));
    }
    deltas[layer] = found;
  }
  return { loss, deltas };
}

/** Forward and backward of `prompt` and `target` (ids): { ids, n, layers, top, loss, deltas }. */
function capture(model, prompt, target, lowest = 0) {
  const { ids, due } = teacherForced(model, prompt, target);
  const run = forward(model, ids);
  return { ...run, ...backward(model, run, due, lowest) };
}

/** x [n, d_in] of a site, and its δ [n, d_out] where a backward pass was made. */
function factors({ n, layers, deltas }, layer, site) {
  const third = ["attn_q", "attn_k", "attn_v"].indexOf(site);
  const x = layers[layer][third >= 0 ? "x1" : { attn_out: "mixed", ff1: "x", ff2: "a" }[site]];
  if (!deltas) return { x };
  const { qkv } = deltas[layer];
  const size = qkv.length / n / 3;
  return { x, delta: third >= 0 ? columns(qkv, n, third * size, size) : deltas[layer][site] };
}
