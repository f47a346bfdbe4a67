-- The files on which the most was spent, with how many charged runs.
SELECT
    file_id,
    any_value(file_name ORDER BY file_name) AS file_name,
    any_value(file_type ORDER BY file_type) AS file_type,
    sum(credits) AS credits,
    coalesce(sum(credits) FILTER (WHERE basis = 'inferred'), 0) AS inferred_credits,
    count(*) FILTER (WHERE line = 1) AS charged_runs,
    min(charged_on) AS first_day,
    max(charged_on) AS last_day
FROM asked
WHERE basis <> 'unknown' AND file_id IS NOT NULL
GROUP BY file_id
ORDER BY credits DESC, file_id
LIMIT $most
