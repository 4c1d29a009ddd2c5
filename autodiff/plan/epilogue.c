/* The pass that lets items run behind a product, part by part: elementwise items of its shape and sums of their rows,
 * where what they read is of the same rows or computed before the product. A backend that multiplies rows in parts runs
 * each part's followers while it is in cache; to any other a follower is an item like the rest. Called after the items
 * are ordered, before they are placed. */
#include <string.h>

#include "autodiff/plan/plan.h"

/* The item that a node's value waits for: the head of its item's group; -1 where it is there before. */
static int32_t head_of(const plan *p, const int32_t *head, int32_t node)
{
    int32_t k = p->item_of[node];
    return k < 0 || head[k] < 0 ? k : head[k];
}

static bool is_product(const plan *p, int32_t k)
{
    int32_t m = p->member[p->item[k].first];
    return p->item[k].shape < 0 && p->node[m].op == OP_matmul && plan_attrs(p, m)[2] <= 1 && plan_attrs(p, m)[3] <= 1;
}

/* The product that an elementwise item may follow: the last thing it waits for, read in the order of the loop. */
static int32_t product_of_loop(const plan *p, const int32_t *head, int32_t k)
{
    const plan_item *it = &p->item[k];
    int32_t last = -1;
    bool in_order = true;
    for (int32_t a = it->first; a < it->first + it->count; a++) {
        for (int j = 0; j < p->node[p->member[a]].n_inputs; j++) {
            int32_t shape, from = ad__plan_operand(p, plan_inputs(p, p->member[a])[j], &shape);
            int32_t at = head_of(p, head, from);
            if (p->item_of[from] == k || at < last)
                continue;
            in_order = (at > last || in_order) && shape == it->shape && p->node[from].shape == shape;
            last = at;
        }
    }
    return last >= 0 && in_order ? last : -1;
}

/* The product whose rows a sum's rows are. */
static int32_t product_of_rows(const plan *p, const int32_t *head, int32_t k)
{
    int32_t m = p->member[p->item[k].first];
    if (p->item[k].shape >= 0 || p->node[m].op != OP_reduce_sum || plan_attrs(p, m)[2] != 1)
        return -1;
    int32_t from = ad__plan_source(p, plan_inputs(p, m)[0]), at = head_of(p, head, from);
    if (at < 0 || !is_product(p, at))
        return -1;
    const int64_t *product = plan_attrs(p, p->member[p->item[at].first]), *sum = plan_attrs(p, m);
    return product[4] == sum[0] && product[5] == sum[1] ? at : -1;
}

bool ad__pass_epilogue(plan *p)
{
    ad_context *c = p->context;
    size_t n = (size_t)p->n_items + 1;
    int32_t *head = ad__allocate(c, NULL, n * sizeof *head);
    plan_item *item = head ? ad__allocate(c, NULL, n * sizeof *item) : NULL;
    if (!item) {
        ad__allocate(c, head, 0);
        return false;
    }
    memset(head, 0xff, n * sizeof *head);
    for (int32_t k = 0; k < p->gate; k++) {
        int32_t at = p->item[k].shape >= 0 ? product_of_loop(p, head, k) : product_of_rows(p, head, k);
        if (at >= 0 && is_product(p, at) &&
            (p->item[k].shape < 0 || p->node[p->member[p->item[at].first]].shape == p->item[k].shape))
            head[k] = at;
    }
    int32_t end = 0;
    for (int32_t k = 0; k < p->n_items; k++) { /* heads in order, each with its followers behind it */
        if (head[k] >= 0)
            continue;
        item[end++] = p->item[k];
        for (int32_t j = k + 1; is_product(p, k) && j < p->gate; j++)
            if (head[j] == k) {
                item[end] = p->item[j];
                item[end++].follows = true;
            }
    }
    memcpy(p->item, item, (size_t)end * sizeof *item);
    for (int32_t k = 0; k < p->n_items; k++)
        for (int32_t a = p->item[k].first; a < p->item[k].first + p->item[k].count; a++)
            p->item_of[p->member[a]] = k;
    ad__allocate(c, item, 0);
    ad__allocate(c, head, 0);
    return true;
}
