"""The Triton kernels of region-word alignment; :mod:`regionvlp.losses.region_word.fused` launches them.

The alignment is symmetric in its two sides. Here the side with more tokens lies along *rows* (a video's regions, as a
rule), the other along *columns* (a caption's words). A program takes one item of the first and a run of items of the
second: the rows' unit tokens are read into shared memory once, the columns' stream past, and for every pair the tile
of cosines stays in registers from the matrix product that makes it to the one number per direction that is left of it.
Both directions are taken from the same tile: where rows ask, the softmax runs along columns, and the other way round.

An item that is too large for one tile (``BLOCKS`` > 1) is walked in blocks of rows, and its cosines are made anew in
every pass: the first gathers what couples the blocks (the norms over asking rows, the softmax over rows), the second
the attended vectors, the third (of the gradient) what follows from both.

The derivative, with w the focused attention of one query, v the vector it attends to, c = <q, v> / |v|, and ^ for
divided by |v| (what is kept counts as constant; g is the gradient that arrives at c):

    c = w^ . a,   |v|^2 = w' G w          a: cosines of this query, G: Gram matrix of the contexts
    dlogit_m = g w^_m (a_m - c <u_m, v^>)    the softmax adds nothing: c has degree 0 in w, so these sum to 0
    da_m = g w^_m + through the logits
    du_m = -g c w^_m v^ + through a          u_m: unit context m

and in the public form, where logit = s b / (r + e) with b = LeakyReLU(a) and r = norm of b over all queries t,

    db = s dlogit / (r + e) - b (sum over t of s dlogit b) / ((r + e)^2 r),   da += LeakyReLU'(a) db.

The gradient kernel does not sum over pairs. It writes, for a bounded number of pairs at a time, the derivative by the
dot products of the raw tokens (``dots``), and for -g c w^ v^ either w^ and v^ or sums of w^ w^', to be multiplied with
the contexts. The sums over pairs are plain matrix products then, in a fixed order: no atomics, and the same gradient
at every run; and no accumulator [rows, D] has to share the registers with the tile.

Matrix products take what dtype the unit tokens come in and accumulate in float32; everything else is float32.

Arguments, for V items of N rows, T items of M columns, and tokens of width D:
    x, y: unit tokens [V, N, D] and [T, M, D].
    x_notes, y_notes: [V, 5, N] and [T, 5, M] float32, see ``REAL`` to ``INVERSE``.
    x_count, y_count: [V] and [T] float32, how many contexts the focusing threshold counts.
    x_gram, y_gram: [V, N, N] and [T, M, M] Gram matrices in the dtype of the tokens; read where columns ask and
        ``GRAM``, and where rows ask.
    items, rows, octets, width: T, N, M / 8 and D; M is a multiple of 8.
    sharpness: what public logits are multiplied with.
    GROUP: column items per program.
    ROWS, COLS, WIDTH: the tile, powers of two; COLS >= M, WIDTH >= D, ROWS * BLOCKS >= N.
    ROWS_ASK, COLS_ASK: which directions are wanted.
"""

# No postponed annotations here: Triton reads them.
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

import triton
import triton.language as tl

# Rows of the notes. As a context: 1 if it can be attended to; how loud it is read. As a query: 1 if it counts in the
# norm over queries; what its agreement weighs. INVERSE is what the raw token was multiplied with to be a unit.
REAL = tl.constexpr(0)
LOUD = tl.constexpr(1)
NORMED = tl.constexpr(2)
ASKS = tl.constexpr(3)
INVERSE = tl.constexpr(4)
NOTES = tl.constexpr(5)

# Compiled once whatever their number and alignment, which differ from block to block; they are read number by number.
_PLAIN = ["x_notes", "y_notes", "x_count", "y_count", "x_gram", "items"]

_EPSILON = tl.constexpr(1e-8)  # what the public code adds to every norm
_ALIKE = tl.constexpr(1e-3)  # as in the lean form
_LOWEST = tl.constexpr(-1e30)
_NOTHING = tl.constexpr(1e-12)  # |v|^2 up to here is rounding: nothing was attended to


@triton.jit(do_not_specialize=[*_PLAIN, "rows_ask", "cols_ask"])
def scores_kernel(
    x, y, x_notes, y_notes, x_count, y_count, x_gram, y_gram, rows_ask, cols_ask,
    items, rows, octets, width, sharpness,
    GROUP: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr, WIDTH: tl.constexpr, BLOCKS: tl.constexpr,
    GRAM: tl.constexpr, PUBLIC: tl.constexpr, REFINE: tl.constexpr, ROWS_ASK: tl.constexpr, COLS_ASK: tl.constexpr,
):  # fmt: skip
    """Writes the agreements of every pair, summed over who asks: rows_ask and cols_ask [V, T] float32."""
    cols = 8 * octets  # so that Triton knows it for a multiple of 8, and writes 16 bytes at a time
    groups = tl.cdiv(items, GROUP)
    i = tl.program_id(0) // groups
    first = (tl.program_id(0) % groups) * GROUP
    count_x = tl.load(x_count + i)
    gram_x = 0
    if GRAM and COLS_ASK:
        gram_x = _square(x_gram, i, rows, ROWS)
    if BLOCKS == 1:
        x_RD, real_R1, loud_R1, normed_R1, asks_R1 = _rows(x, x_notes, i, 0, rows, width, ROWS, WIDTH)
    for step in range(GROUP):
        j = tl.minimum(first + step, items - 1)  # past the end the last one is done again
        y_CD = _tokens(y, j, 0, cols, width, COLS, WIDTH)
        real_1C, loud_1C, normed_1C, asks_1C = _column_notes(y_notes, j, cols, COLS)
        count_y = tl.load(y_count + j)
        pair = _index(i) * items + j
        if BLOCKS == 1:
            a = _dot(x_RD, tl.trans(y_CD))

        square_1C = tl.zeros([1, COLS], tl.float32)
        top_1C = tl.full([1, COLS], _LOWEST, tl.float32)
        mass_1C = tl.zeros([1, COLS], tl.float32)
        for block in range(BLOCKS):
            if BLOCKS > 1:
                x_RD, real_R1, loud_R1, normed_R1, asks_R1 = _rows(x, x_notes, i, block, rows, width, ROWS, WIDTH)
                a = _dot(x_RD, tl.trans(y_CD))
            b = _damped(a, PUBLIC)
            if ROWS_ASK and PUBLIC:
                square_1C += tl.sum(b * b * normed_R1, 0, keep_dims=True)
            if COLS_ASK:
                logit = _logits(b, _norm_of_rows(b, normed_1C, PUBLIC), sharpness, PUBLIC)
                top_1C, mass_1C = _more_of_the_softmax(top_1C, mass_1C, logit, real_R1)

        rows_sum = 0.0
        along_1C = tl.zeros([1, COLS], tl.float32)
        square_of_v_1C = tl.zeros([1, COLS], tl.float32)
        if COLS_ASK and not GRAM:
            v_DC = tl.zeros([WIDTH, COLS], tl.float32)
        for block in range(BLOCKS):
            if BLOCKS > 1:
                x_RD, real_R1, loud_R1, normed_R1, asks_R1 = _rows(x, x_notes, i, block, rows, width, ROWS, WIDTH)
                a = _dot(x_RD, tl.trans(y_CD))
            b = _damped(a, PUBLIC)
            if ROWS_ASK:
                logit = _logits(b, tl.sqrt(square_1C), sharpness, PUBLIC)
                gram_y = _square(y_gram, j, cols, COLS)
                _w, _read, _length, c_R1 = _rows_read(a, logit, real_1C, count_y, loud_1C, gram_y, PUBLIC, REFINE)
                rows_sum += tl.sum(tl.sum(c_R1 * asks_R1, 1), 0)
            if COLS_ASK:
                logit = _logits(b, _norm_of_rows(b, normed_1C, PUBLIC), sharpness, PUBLIC)
                w = _focused(logit, top_1C, mass_1C, real_R1, count_x, loud_R1, PUBLIC, REFINE)
                along_1C += tl.sum(w * a, 0, keep_dims=True)
                if GRAM:
                    square_of_v_1C += tl.sum(w * _dot(gram_x, w.to(x_RD.dtype)), 0, keep_dims=True)
                else:
                    v_DC += _dot(tl.trans(x_RD), w.to(x_RD.dtype))
        if ROWS_ASK:
            tl.store(rows_ask + pair, rows_sum)
        if COLS_ASK:
            if not GRAM:
                square_of_v_1C = tl.sum(v_DC * v_DC, 0, keep_dims=True)
            c_1C = along_1C * _inverse_length(square_of_v_1C)
            tl.store(cols_ask + pair, tl.sum(tl.sum(c_1C * asks_1C, 1), 0))


@triton.jit(do_not_specialize=[*_PLAIN, "rows_grad", "cols_grad"])
def gradients_kernel(
    x, y, x_notes, y_notes, x_count, y_count, x_gram, y_gram, rows_grad, cols_grad,
    dots, cols_read, rows_read, attended, rows_square, cols_loud, rows_loud,
    items, rows, octets, width, sharpness,
    GROUP: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr, WIDTH: tl.constexpr, BLOCKS: tl.constexpr,
    GRAM: tl.constexpr, PUBLIC: tl.constexpr, REFINE: tl.constexpr, ROWS_ASK: tl.constexpr, COLS_ASK: tl.constexpr,
):  # fmt: skip
    """Pair by pair, the derivatives of sum(rows_grad * rows_ask + cols_grad * cols_ask).

    Writes, the first four in their own (narrow) dtype, the rest in float32:
        dots: [V, N, T, M], by the dot product of two raw tokens.
        cols_read: [V, T, M, M], where rows ask: sum over them of g c w^ w^'. Times the unit columns it is what to
            subtract from the derivative by those.
        rows_read, attended: [V, N, T, M] and [V, T, M, D], where columns ask and not GRAM: g c w^ times INVERSE of the
            row, and v^. Their product is what to subtract from the derivative by the raw rows.
        rows_square: [V, groups, N, N], where columns ask and GRAM: as cols_read, summed over items as well.
        cols_loud, rows_loud: [V, T, M] and [V, T, N], in the paper form: loudness times the derivative by it.
    """
    cols = 8 * octets  # so that Triton knows it for a multiple of 8, and writes 16 bytes at a time
    groups = tl.cdiv(items, GROUP)
    i = tl.program_id(0) // groups
    part = tl.program_id(0) % groups
    first = part * GROUP
    count_x = tl.load(x_count + i)
    column = tl.arange(0, COLS)
    gram_x = 0
    if GRAM and COLS_ASK:
        gram_x = _square(x_gram, i, rows, ROWS)
        square_RR = tl.zeros([ROWS, ROWS], tl.float32)
    if BLOCKS == 1:
        x_RD, real_R1, loud_R1, normed_R1, asks_R1 = _rows(x, x_notes, i, 0, rows, width, ROWS, WIDTH)
    for step in range(GROUP):
        j = tl.minimum(first + step, items - 1)  # past the end the last one is done again
        y_CD = _tokens(y, j, 0, cols, width, COLS, WIDTH)
        real_1C, loud_1C, normed_1C, asks_1C = _column_notes(y_notes, j, cols, COLS)
        inverse_1C = _note(y_notes, j, INVERSE, 0, cols, COLS)[None, :]
        count_y = tl.load(y_count + j)
        pair = _index(i) * items + j
        square_1C = tl.zeros([1, COLS], tl.float32)
        pull_1C = tl.zeros([1, COLS], tl.float32)
        read_CC = tl.zeros([COLS, COLS], tl.float32)
        loud_sum_1C = tl.zeros([1, COLS], tl.float32)
        if ROWS_ASK:
            g_rows = tl.load(rows_grad + pair)
            gram_y = _square(y_gram, j, cols, COLS)
        if COLS_ASK:
            g_cols = tl.load(cols_grad + pair)
        if BLOCKS == 1:
            # One direction is done with before the other begins: both at once do not fit into registers.
            a = _dot(x_RD, tl.trans(y_CD))
            b = _damped(a, PUBLIC)
            if ROWS_ASK:
                norm_1C = tl.sqrt(tl.sum(b * b * normed_R1, 0, keep_dims=True))
                logit = _logits(b, norm_1C, sharpness, PUBLIC)
                w, dlogit, c_R1 = _rows_back(a, logit, real_1C, count_y, loud_1C, gram_y, asks_R1, PUBLIC, REFINE)
                pull_1C = tl.sum(dlogit * b, 0, keep_dims=True)
                da = g_rows * (asks_R1 * w + _through(dlogit, a, b, norm_1C, normed_R1, pull_1C, sharpness, PUBLIC))
                read_CC = g_rows * _weighted_square(w, asks_R1 * c_R1, x_RD)
                loud_sum_1C = g_rows * tl.sum(dlogit, 0, keep_dims=True)
            else:
                da = tl.zeros([ROWS, COLS], tl.float32)

        top_1C = tl.full([1, COLS], _LOWEST, tl.float32)
        mass_1C = tl.zeros([1, COLS], tl.float32)
        for block in range(BLOCKS):
            if BLOCKS > 1:
                x_RD, real_R1, loud_R1, normed_R1, asks_R1 = _rows(x, x_notes, i, block, rows, width, ROWS, WIDTH)
                a = _dot(x_RD, tl.trans(y_CD))
                b = _damped(a, PUBLIC)
                if ROWS_ASK and PUBLIC:
                    square_1C += tl.sum(b * b * normed_R1, 0, keep_dims=True)
            if COLS_ASK:
                logit = _logits(b, _norm_of_rows(b, normed_1C, PUBLIC), sharpness, PUBLIC)
                top_1C, mass_1C = _more_of_the_softmax(top_1C, mass_1C, logit, real_R1)

        along_1C = tl.zeros([1, COLS], tl.float32)
        square_of_v_1C = tl.zeros([1, COLS], tl.float32)
        if COLS_ASK and not GRAM:
            v_DC = tl.zeros([WIDTH, COLS], tl.float32)
        for block in range(BLOCKS):
            if BLOCKS > 1:
                x_RD, real_R1, loud_R1, normed_R1, asks_R1 = _rows(x, x_notes, i, block, rows, width, ROWS, WIDTH)
                a = _dot(x_RD, tl.trans(y_CD))
                b = _damped(a, PUBLIC)
                if ROWS_ASK and PUBLIC:
                    logit = _logits(b, tl.sqrt(square_1C), sharpness, PUBLIC)
                    w, dlogit, c_R1 = _rows_back(a, logit, real_1C, count_y, loud_1C, gram_y, asks_R1, PUBLIC, REFINE)
                    pull_1C += tl.sum(dlogit * b, 0, keep_dims=True)
            if COLS_ASK:
                logit = _logits(b, _norm_of_rows(b, normed_1C, PUBLIC), sharpness, PUBLIC)
                w = _focused(logit, top_1C, mass_1C, real_R1, count_x, loud_R1, PUBLIC, REFINE)
                along_1C += tl.sum(w * a, 0, keep_dims=True)
                if GRAM:
                    square_of_v_1C += tl.sum(w * _dot(gram_x, w.to(x_RD.dtype)), 0, keep_dims=True)
                else:
                    v_DC += _dot(tl.trans(x_RD), w.to(x_RD.dtype))
        if COLS_ASK:
            if not GRAM:
                square_of_v_1C = tl.sum(v_DC * v_DC, 0, keep_dims=True)
            length_1C = _inverse_length(square_of_v_1C)
            c_1C = along_1C * length_1C
            if not GRAM:
                v_DC *= length_1C
                d = tl.arange(0, WIDTH)
                v_at = attended + pair * cols * width + (column[None, :] * width + d[:, None])
                tl.store(v_at, v_DC.to(attended.dtype.element_ty), (column[None, :] < cols) & (d[:, None] < width))

        for block in range(BLOCKS):
            if BLOCKS > 1:
                x_RD, real_R1, loud_R1, normed_R1, asks_R1 = _rows(x, x_notes, i, block, rows, width, ROWS, WIDTH)
                a = _dot(x_RD, tl.trans(y_CD))
                b = _damped(a, PUBLIC)
                da = tl.zeros([ROWS, COLS], tl.float32)
                if ROWS_ASK:
                    norm_1C = tl.sqrt(square_1C)
                    logit = _logits(b, norm_1C, sharpness, PUBLIC)
                    w, dlogit, c_R1 = _rows_back(a, logit, real_1C, count_y, loud_1C, gram_y, asks_R1, PUBLIC, REFINE)
                    da = g_rows * (asks_R1 * w + _through(dlogit, a, b, norm_1C, normed_R1, pull_1C, sharpness, PUBLIC))
                    read_CC += g_rows * _weighted_square(w, asks_R1 * c_R1, x_RD)
                    loud_sum_1C += g_rows * tl.sum(dlogit, 0, keep_dims=True)
            inverse_R1 = _note(x_notes, i, INVERSE, block * ROWS, rows, ROWS)[:, None]
            row = block * ROWS + tl.arange(0, ROWS)
            inside = (row[:, None] < rows) & (column[None, :] < cols)
            at = row[:, None] * (items * cols) + column[None, :]
            start = (_index(i) * rows * items + j) * cols
            if COLS_ASK:
                norm_R1 = _norm_of_rows(b, normed_1C, PUBLIC)
                logit = _logits(b, norm_R1, sharpness, PUBLIC)
                w = _focused(logit, top_1C, mass_1C, real_R1, count_x, loud_R1, PUBLIC, REFINE)
                read = _dot(gram_x, w.to(x_RD.dtype)) * length_1C if GRAM else _dot(x_RD, v_DC.to(x_RD.dtype))
                w *= length_1C
                dlogit = asks_1C * w * (a - c_1C * read)
                weight = asks_1C * c_1C * w
                if GRAM:
                    square_RR += tl.where(first + step < items, g_cols, 0.0) * _dot(
                        weight.to(x_RD.dtype), tl.trans(w.to(x_RD.dtype))
                    )
                else:
                    weight *= g_cols * inverse_R1
                    tl.store(rows_read + start + at, weight.to(rows_read.dtype.element_ty), inside)
                if not PUBLIC:
                    tl.store(rows_loud + pair * rows + row, g_cols * tl.sum(dlogit, 1), row < rows)
                pull_R1 = tl.sum(dlogit * b, 1, keep_dims=True)
                da += g_cols * (asks_1C * w + _through(dlogit, a, b, norm_R1, normed_1C, pull_R1, sharpness, PUBLIC))
            tl.store(dots + start + at, (da * inverse_R1 * inverse_1C).to(dots.dtype.element_ty), inside)
        if ROWS_ASK:
            read_at = cols_read + pair * cols * cols + (column[:, None] * cols + column[None, :])
            read_inside = (column[:, None] < cols) & (column[None, :] < cols)
            tl.store(read_at, read_CC.to(cols_read.dtype.element_ty), read_inside)
            if not PUBLIC:
                tl.store(cols_loud + pair * cols + column[None, :], loud_sum_1C, column[None, :] < cols)
    if GRAM and COLS_ASK:
        row = tl.arange(0, ROWS)
        square_at = rows_square + (_index(i) * groups + part) * rows * rows
        square_inside = (row[:, None] < rows) & (row[None, :] < rows)
        tl.store(square_at + row[:, None] * rows + row[None, :], square_RR, square_inside)


@triton.jit
def _rows_read(a, logit, real_1C, count, loud_1C, gram, PUBLIC: tl.constexpr, REFINE: tl.constexpr):
    """Every row attends to the columns: w, Gram matrix times w, 1 / |v|, c."""
    top_R1 = tl.max(tl.where(real_1C > 0, logit, _LOWEST), 1, keep_dims=True)
    mass_R1 = tl.sum(tl.where(real_1C > 0, tl.exp(logit - top_R1), 0.0), 1, keep_dims=True)
    w = _focused(logit, top_R1, mass_R1, real_1C, count, loud_1C, PUBLIC, REFINE)
    read = _dot(w.to(gram.dtype), gram)
    length_R1 = _inverse_length(tl.sum(w * read, 1, keep_dims=True))
    return w, read, length_R1, length_R1 * tl.sum(w * a, 1, keep_dims=True)


@triton.jit
def _rows_back(a, logit, real_1C, count, loud_1C, gram, asks_R1, PUBLIC: tl.constexpr, REFINE: tl.constexpr):
    """w^, the derivative of the rows' agreements by their logits, and c."""
    w, read, length_R1, c_R1 = _rows_read(a, logit, real_1C, count, loud_1C, gram, PUBLIC, REFINE)
    w *= length_R1
    return w, asks_R1 * w * (a - c_R1 * (read * length_R1)), c_R1


@triton.jit
def _focused(logit, top, mass, real, count, loud, PUBLIC: tl.constexpr, REFINE: tl.constexpr):
    """Attention without its denominator (no cosine can see that), 0 where it is not above the average.

    Where several contexts are alike, the highest weight being hardly above the average, all of it stays.
    """
    t = tl.where(real > 0, tl.exp(logit - top), 0.0)
    if REFINE:
        unlike = tl.where(count > 1, 1 + _ALIKE, 0.0)  # the highest weight is exp(0)
        t = tl.where(t * count > tl.where(count > mass * unlike, mass, 0.0), t, 0.0)
    if not PUBLIC:
        t *= loud
    return t


@triton.jit
def _more_of_the_softmax(top_1C, mass_1C, logit, real_R1):
    """Maximum and sum of exponentials over the rows so far and those of one more block."""
    new_1C = tl.maximum(top_1C, tl.max(tl.where(real_R1 > 0, logit, _LOWEST), 0, keep_dims=True))
    more_1C = tl.sum(tl.where(real_R1 > 0, tl.exp(logit - new_1C), 0.0), 0, keep_dims=True)
    return new_1C, mass_1C * tl.exp(top_1C - new_1C) + more_1C


@triton.jit
def _damped(a, PUBLIC: tl.constexpr):
    if PUBLIC:
        return tl.where(a > 0, a, 0.1 * a)
    else:
        return a


@triton.jit
def _logits(b, norm, sharpness, PUBLIC: tl.constexpr):
    if PUBLIC:
        return b * (sharpness / (norm + _EPSILON))
    else:
        return b


@triton.jit
def _norm_of_rows(b, normed_1C, PUBLIC: tl.constexpr):
    """Of each row over its columns; the paper has no such thing and ignores it."""
    if PUBLIC:
        return tl.sqrt(tl.sum(b * b * normed_1C, 1, keep_dims=True))
    else:
        return 0.0


@triton.jit
def _through(dlogit, a, b, norm, normed, pull, sharpness, PUBLIC: tl.constexpr):
    """From the derivative by the logits to that by the cosines."""
    if PUBLIC:
        rho = norm + _EPSILON
        scale = sharpness / rho
        # Where all are 0 there is nothing to divide by the norm, and no way back through it.
        shared = tl.where(norm > 0, scale * pull / (rho * tl.maximum(norm, 1e-30)), 0.0)
        db = tl.where(norm > 0, scale, 0.0) * dlogit - normed * b * shared
        return tl.where(a > 0, db, 0.1 * db)
    else:
        return dlogit


@triton.jit
def _weighted_square(w, weight_R1, like):
    """w' diag(weight) w, multiplied in the dtype of ``like``."""
    return _dot(tl.trans(w.to(like.dtype)), (weight_R1 * w).to(like.dtype))


@triton.jit
def _inverse_length(square):
    return tl.where(square > _NOTHING, tl.rsqrt(tl.maximum(square, _NOTHING)), 0.0)


@triton.jit
def _dot(left, right):
    return tl.dot(left, right, input_precision="ieee")


@triton.jit
def _index(i):
    """An item's number as a 64-bit integer: offsets into token tensors outgrow 32 bits."""
    return tl.cast(i, tl.int64)


@triton.jit
def _tokens(ptr, item, first, tokens, width, ROWS: tl.constexpr, WIDTH: tl.constexpr):
    row = first + tl.arange(0, ROWS)
    d = tl.arange(0, WIDTH)
    at = row[:, None] * width + d[None, :]
    return tl.load(
        ptr + _index(item) * tokens * width + at, mask=(row[:, None] < tokens) & (d[None, :] < width), other=0.0
    )


@triton.jit
def _square(ptr, item, tokens, ROWS: tl.constexpr):
    return _tokens(ptr, item, 0, tokens, tokens, ROWS, ROWS)


@triton.jit
def _note(ptr, item, NOTE: tl.constexpr, first, tokens, ROWS: tl.constexpr):
    row = first + tl.arange(0, ROWS)
    return tl.load(ptr + (_index(item) * NOTES + NOTE) * tokens + row, mask=row < tokens, other=0.0)


@triton.jit
def _rows(ptr, notes, item, block, tokens, width, ROWS: tl.constexpr, WIDTH: tl.constexpr):
    """The block-th ROWS of an item's tokens, and what is noted about them."""
    first = block * ROWS
    x_RD = _tokens(ptr, item, first, tokens, width, ROWS, WIDTH)
    real = _note(notes, item, REAL, first, tokens, ROWS)[:, None]
    loud = _note(notes, item, LOUD, first, tokens, ROWS)[:, None]
    normed = _note(notes, item, NORMED, first, tokens, ROWS)[:, None]
    return x_RD, real, loud, normed, _note(notes, item, ASKS, first, tokens, ROWS)[:, None]


@triton.jit
def _column_notes(ptr, item, tokens, COLS: tl.constexpr):
    real = _note(ptr, item, REAL, 0, tokens, COLS)[None, :]
    loud = _note(ptr, item, LOUD, 0, tokens, COLS)[None, :]
    normed = _note(ptr, item, NORMED, 0, tokens, COLS)[None, :]
    return real, loud, normed, _note(ptr, item, ASKS, 0, tokens, COLS)[None, :]
