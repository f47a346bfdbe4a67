-- Credits that brought nothing new, by why, and by the dimensions asked for. A resource counts once, under the first:
-- `failed`: it, the run that caused it, or each run that used it as its parse run failed or was cancelled;
-- `repeated`: the same kind of run by the same processor and version had been charged for the same file before. Which
-- one was first is decided over the whole lake, not within the window.
WITH users AS (
    SELECT
        parse_run_id AS resource_id,
        bool_and(status IN ('FAILED', 'CANCELLED')) AS all_failed
    FROM runs
    WHERE parse_run_id IS NOT NULL
    GROUP BY parse_run_id
),
resources AS (
    SELECT
        resource_id,
        row_number() OVER (
            PARTITION BY resource_kind, file_id, processor_id, processor_version
            ORDER BY charged_at NULLS LAST, resource_id
        ) AS turn,
        file_id
    FROM credit_ledger
    WHERE line = 1 AND file_id IS NOT NULL AND resource_id IS NOT NULL AND credits > 0
),
judged AS (
    SELECT
        asked.*,
        CASE
            WHEN asked.status IN ('FAILED', 'CANCELLED')
                OR asked.caused_by_status IN ('FAILED', 'CANCELLED')
                OR users.all_failed
            THEN 'failed'
            WHEN resources.turn > 1 THEN 'repeated'
        END AS why
    FROM asked
    LEFT JOIN users ON users.resource_id = asked.resource_id
    LEFT JOIN resources ON resources.resource_id = asked.resource_id
    WHERE asked.basis <> 'unknown'
)
SELECT
    why,
    COLUMNS('^by_(.+)$') AS '\1',
    sum(credits) AS credits,
    count(*) FILTER (WHERE is_counted) AS charged_runs
FROM judged
WHERE why IS NOT NULL AND credits > 0
GROUP BY ALL
ORDER BY why, credits DESC, COLUMNS('^by_.+$') NULLS LAST
