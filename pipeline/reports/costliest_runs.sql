-- The runs that cost the most, each with what it caused itself (such as its parse run). A workflow's children count as
-- themselves.
WITH runs_charged AS (
    SELECT
        CASE
            WHEN caused_by_run_id IS NULL OR caused_by_kind IS NOT DISTINCT FROM 'workflow_run' THEN resource_id
            ELSE caused_by_run_id
        END AS run_id,
        sum(credits) AS credits,
        coalesce(sum(credits) FILTER (WHERE basis = 'inferred'), 0) AS inferred_credits,
        min(charged_on) AS charged_on
    FROM asked
    WHERE basis <> 'unknown'
    GROUP BY ALL
    ORDER BY credits DESC, run_id
    LIMIT $most
)
SELECT
    runs_charged.run_id,
    runs.kind,
    runs_charged.charged_on,
    runs_charged.credits,
    runs_charged.inferred_credits,
    coalesce(runs.processor_name, runs.processor_id) AS processor,
    runs.processor_version AS version,
    runs.file_name,
    coalesce(runs.page_count, runs.file_pages) AS pages,
    runs.status,
    runs.dashboard_url
FROM runs_charged
LEFT JOIN runs ON runs.run_id = runs_charged.run_id
ORDER BY runs_charged.credits DESC, runs_charged.run_id
