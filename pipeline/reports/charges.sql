-- One row a charge line, as each run reports it: what `breakdown` holds, flat. An entry without charges (before
-- 2026-06-10) gives one row without a product.
-- The same charge may be reported by several runs (the run charged, the one that caused it, the workflow above both):
-- to add credits up, use `credit_ledger`, which has each once.
WITH entries AS (
    SELECT
        run_id,
        kind,
        workspace_id,
        created_at,
        unnest(breakdown) AS entry
    FROM runs
),
lines AS (
    SELECT
        *,
        unnest(
            CASE
                WHEN len(entry.charges) > 0 THEN entry.charges
                ELSE [{
                    product: NULL::VARCHAR, unit: NULL::VARCHAR, quantity: NULL::DECIMAL(18, 6),
                    credits: entry.credits, pages: NULL::BIGINT[]
                }]
            END
        ) AS charge
    FROM entries
)
SELECT
    run_id,
    kind,
    workspace_id,
    created_at,
    entry.object AS charged_kind,
    entry.id AS charged_id,
    entry.credits AS charged_credits,
    charge.product AS product,
    charge.unit AS unit,
    charge.quantity AS quantity,
    charge.credits AS credits,
    charge.pages AS pages
FROM lines
