-- A view of an exported database: credits by day and kind, each credit once, and the runs whose credits are unknown.
SELECT
    coalesce(known.day, unknown.day) AS day,
    coalesce(known.kind, unknown.kind) AS kind,
    credits,
    coalesce(charged_runs, 0) AS charged_runs,
    coalesce(inferred_credits, 0) AS inferred_credits,
    coalesce(unknown_runs, 0) AS unknown_runs
FROM (
    SELECT
        charged_on AS day,
        resource_kind AS kind,
        sum(credits) AS credits,
        count(*) FILTER (WHERE line = 1) AS charged_runs,
        sum(credits) FILTER (WHERE basis = 'inferred') AS inferred_credits
    FROM credit_ledger
    GROUP BY ALL
) AS known
FULL JOIN (
    SELECT
        created_on AS day,
        kind,
        count(*) AS unknown_runs
    FROM unknown_credits
    GROUP BY ALL
) AS unknown ON known.day IS NOT DISTINCT FROM unknown.day AND known.kind IS NOT DISTINCT FROM unknown.kind
ORDER BY day NULLS LAST, kind
