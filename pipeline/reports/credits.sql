-- Credits by day and kind, each credit once, beside the runs whose credits are unknown.
-- A run without usage is unknown, unless another run's breakdown tells what it was charged. Workflow runs are never
-- charged themselves, but one without usage hides what its children were.
WITH known AS (
    SELECT
        charged_on AS day,
        resource_kind AS kind,
        count(DISTINCT resource_id) AS charged_runs,
        sum(credits) AS credits,
        coalesce(sum(credits) FILTER (WHERE basis = 'inferred'), 0) AS inferred_credits
    FROM credit_ledger
    GROUP BY ALL
),
unknown AS (
    SELECT
        CAST(created_at AT TIME ZONE 'UTC' AS DATE) AS day,
        kind,
        count(*) AS unknown_runs
    FROM runs
    WHERE credits IS NULL
        AND NOT EXISTS (FROM credit_ledger WHERE credit_ledger.resource_id = runs.run_id)
    GROUP BY ALL
)
SELECT
    coalesce(known.day, unknown.day) AS day,
    coalesce(known.kind, unknown.kind) AS kind,
    coalesce(credits, 0) AS credits,
    coalesce(charged_runs, 0) AS charged_runs,
    coalesce(inferred_credits, 0) AS inferred_credits,
    coalesce(unknown_runs, 0) AS unknown_runs
FROM known
FULL JOIN unknown ON known.day IS NOT DISTINCT FROM unknown.day AND known.kind IS NOT DISTINCT FROM unknown.kind
ORDER BY day NULLS LAST, kind
